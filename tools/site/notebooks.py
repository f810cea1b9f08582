"""Notebooks as pages, from their stored outputs. Nothing is executed, and nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat

_LONGEST = 60
"""The largest number of lines of an output that is shown."""

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_SCRIPTS = re.compile(r"<(script|style)\b.*?</\1>", re.S | re.I)


def notebook_page(notebook: Path, page: Path, prose: Callable[[str], str]) -> str:
    """The notebook as Markdown for `page`, beside which its pictures are written. `prose` changes its text cells."""
    cells = nbformat.read(notebook, as_version=4).cells  # type: ignore[no-untyped-call]
    folder = page.with_suffix("")
    parts: list[str] = []
    for number, cell in enumerate(cells):
        if cell.cell_type == "markdown":
            parts.append(prose(cell.source))
        elif cell.cell_type == "code" and cell.source.strip():
            parts.append(_fenced(cell.source, "python"))
            for index, output in enumerate(cell.outputs):
                parts.extend(_output(output, folder, f"{number}-{index}"))
    return "\n\n".join(parts) + "\n"


def _output(output: Any, folder: Path, name: str) -> Iterator[str]:
    """The best form of an output that a page can show."""
    if output.output_type == "stream":
        yield from _text(output.text)
        return
    if output.output_type == "error":
        yield from _text("\n".join(output.traceback))
        return
    data = output.data
    chart = next((data[kind] for kind in data if kind.startswith("application/vnd.vegalite")), None)
    if chart is not None:
        import vl_convert

        yield _picture(vl_convert.vegalite_to_svg(chart, allowed_base_urls=[]).encode(), folder, f"{name}.svg")
    elif "image/svg+xml" in data:
        yield _picture(data["image/svg+xml"].encode(), folder, f"{name}.svg")
    elif "image/png" in data:
        yield _picture(base64.b64decode(data["image/png"]), folder, f"{name}.png")
    elif "text/markdown" in data:
        yield data["text/markdown"]
    elif "<table" in data.get("text/html", ""):
        table = re.sub(r"\n\s*\n", "\n", _SCRIPTS.sub("", data["text/html"]))  # a blank line would end the HTML
        yield f'<div class="notebook-output">\n{table}\n</div>'
    elif "text/plain" in data:
        yield from _text(data["text/plain"])


def _text(text: str) -> Iterator[str]:
    lines = _ESCAPES.sub("", text).rstrip().splitlines()
    lines = [line.rpartition("\r")[2].rstrip() for line in lines]  # a bar that was drawn over and over
    if any(lines):
        left_out = len(lines) - _LONGEST
        shown = [*lines[:_LONGEST], f"... ({left_out} more lines)"] if left_out > 0 else lines
        yield _fenced("\n".join(shown), "text")


def _fenced(text: str, language: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _picture(content: bytes, folder: Path, name: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    return f"![Output of the cell above]({folder.name}/{name})"
