"""Reports on the terminal and on pages, taken apart; results folders in which every name tries to inject HTML."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from tombola.report.document import Document
from tombola.report.page import write_report
from tombola.report.page_sections import document
from tombola.report.report_data import read_report_data

HOSTILE = "<script>alert(1)</script></script><img src=x onerror=alert(2)>\"'&"


def printed(show: Callable[..., None], *what: Any, width: int = 80) -> str:
    """What `show(console, *what)` prints."""
    file = io.StringIO()
    show(Console(file=file, width=width, color_system=None), *what)
    return file.getvalue()


def document_of(folder: Path) -> Document:
    """The report of a results folder, before it is HTML."""
    return document(read_report_data(folder))


def problems_of(report: Document) -> str:
    """Everything that the report says is missing or damaged."""
    return "\n".join(report.problems)


def section_names(report: Document) -> set[str]:
    return {section.name for section in report.sections}


def figure_names(report: Document) -> set[str]:
    return {figure.name for figure in report.figures}


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, _: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data


def page_of(folder: Path) -> str:
    """The report of a results folder."""
    out = folder.parent / "page.html"
    write_report(folder, out)
    return out.read_text(encoding="utf-8")


def replace_texts(folder: Path, table: str, column: str, names: dict[str, str]) -> None:
    """Replace texts in a table of a results folder."""
    path = folder / f"{table}.parquet"
    read = pq.read_table(path)
    values = [names.get(value, value) for value in read[column].to_pylist()]
    index = read.schema.get_field_index(column)
    pq.write_table(read.set_column(index, read.schema.field(index), pa.array(values)), path)


def make_names_hostile(folder: Path) -> None:
    """Replace every name in a results folder that may be any text by `HOSTILE`."""
    configuration, status_file = folder / "experiment.toml", folder / "status.json"
    text = configuration.read_text().replace('name = "mlp"', f"name = {json.dumps(HOSTILE)}")
    configuration.write_text(text.replace('name = "digits"', f"name = {json.dumps(HOSTILE)}"))
    status = json.loads(status_file.read_text())
    status["engines"] = {HOSTILE: {"runs": 1, "seconds": 1.0}}
    status["versions"] = {HOSTILE: HOSTILE}
    status["command"] = HOSTILE
    status["costs"] = [{**cost, "branch": HOSTILE} for cost in status["costs"]]
    status_file.write_text(json.dumps(status))
    for table in ("levels", "layers", "curves"):
        replace_texts(folder, table, "branch", {"reinit": HOSTILE})
    first = pq.read_table(folder / "layers.parquet")["layer"][0].as_py()
    replace_texts(folder, "layers", "layer", {first: HOSTILE})
