"""Pages: the report of an experiment, and several experiments side by side, each one HTML file.

What draws and lays out is imported only when a page is made.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from tombola.errors import InputError
from tombola.files import replacing

REPORT = "report.html"
"""Its name in a results folder."""


def write_report(folder: Path, out: Path) -> None:
    """Write the report of the results in `folder` to the file `out`.

    Raises `InputError` when `folder` is no results folder or `out` cannot be written.
    """
    from tombola.report.html import render
    from tombola.report.material import gather
    from tombola.report.sections import document

    _write(out, render(document(gather(folder))))


def write_comparison(folders: Sequence[Path], out: Path) -> None:
    """Write a page that puts the results in several folders side by side. Raises `InputError` likewise."""
    from tombola.report.comparing import comparison
    from tombola.report.html import render
    from tombola.report.material import gather

    if not folders:
        raise InputError("there is nothing to compare: name at least one results folder")
    _write(out, render(comparison([gather(folder) for folder in folders])))


def write_figures(folder: Path, out: Path) -> list[Path]:
    """Write each figure of a report to the folder `out`, as NAME.svg and its numbers as NAME.csv.

    Returns their paths. Raises `InputError` likewise.
    """
    from tombola.report.html import still
    from tombola.report.material import gather
    from tombola.report.sections import document

    written = []
    for figure in document(gather(folder)).figures:
        table = io.StringIO()
        writer = csv.DictWriter(table, figure.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(figure.rows)
        for ending, text in (("svg", still(figure)), ("csv", table.getvalue())):
            written.append(out / f"{figure.name}.{ending}")
            _write(written[-1], text)
    return written


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
