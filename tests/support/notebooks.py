"""The tutorials: executed in a kernel of their own, with outputs as they are committed.

`make tutorials` renews the outputs in docs/tutorials, `python -m tests.support.notebooks NAME` those of one.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/tutorials"
TIMEOUT = 600
"""Seconds for a cell, on a machine that does other work, too."""

GUARD = 'import warnings\nwarnings.simplefilter("error")'
"""Executed before the first cell."""
RELEASE = "warnings.resetwarnings()"
"""Executed after the last: the kernel itself warns when it shuts down."""


def tutorials() -> list[Path]:
    """The notebooks."""
    return sorted(FOLDER.glob("*.ipynb"))


def read(path: Path) -> Any:
    """A notebook as it is in its file."""
    import nbformat

    return nbformat.read(path, as_version=4)


def execute(path: Path) -> Any:
    """The notebook with new outputs, cleaned. Errors and warnings in a cell raise nbclient's `CellExecutionError`."""
    os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")  # otherwise jupyter_core warns
    import nbformat
    from nbclient import NotebookClient

    notebook = read(path)
    guard, release = map(nbformat.v4.new_code_cell, (GUARD, RELEASE))
    notebook.cells = [guard, *notebook.cells, release]
    with tempfile.TemporaryDirectory() as scratch:
        paths = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
        own = {"IPYTHONDIR": scratch, "TMPDIR": scratch, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(FOLDER)}},
        )
        client.execute(env={**os.environ, **own})
    notebook.cells = notebook.cells[1:-1]
    clean(notebook)
    return notebook


def clean(notebook: Any) -> None:
    """Remove what changes from one execution to the next, and charts that need JavaScript: their pictures stay."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type != "code":
            continue
        cell.execution_count = None
        cell.outputs = _joined(cell.outputs)
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = None
            if "data" in output:
                output.metadata = {}
                kept = {kind: shown for kind, shown in output.data.items() if "vnd.vega" not in kind}
                output.data = type(output.data)(kept)


def _joined(outputs: list[Any]) -> list[Any]:
    """The same with one output for what was written to a stream in several parts."""
    found: list[Any] = []
    for output in outputs:
        if output.output_type == "stream" and found and found[-1].get("name") == output.name:
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def texts(notebook: Any) -> Iterator[str]:
    """Everything that the outputs say."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            yield from output.get("data", {}).values()
            yield output.get("text", "")


def kinds(notebook: Any) -> list[list[tuple[str, ...]]]:
    """By code cell, of each output its type, and its stream or its media types."""
    return [
        [(output.output_type, output.get("name", ""), *sorted(output.get("data", {}))) for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def main(names: list[str]) -> None:
    """Renew the outputs of these tutorials, or of all."""
    import nbformat

    for path in tutorials():
        if not names or path.stem in names:
            sys.stdout.write(f"{path.relative_to(ROOT)}\n")
            sys.stdout.flush()
            nbformat.write(execute(path), path)


if __name__ == "__main__":
    main(sys.argv[1:])
