"""Pages: the report of an experiment, and the comparison of several, each one HTML file.

The plotting libraries are imported only when a page is written.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tombola.utils.errors import InputError
from tombola.utils.files import atomic_write

if TYPE_CHECKING:
    from tombola.experiments.results import Results

REPORT = "report.html"
"""The name of the report in a results folder."""


def write_report(folder: str | Path | Results, out: str | Path) -> None:
    """Write the report of the results in `folder`, or of `Results`, to the file `out`.

    Raises `InputError` if `folder` is not a results folder or `out` cannot be written.
    """
    from tombola.report.html import render
    from tombola.report.page_sections import document
    from tombola.report.report_data import read_report_data

    _write(out, render(document(read_report_data(folder))))


def write_comparison(folders: Sequence[str | Path | Results], out: str | Path) -> None:
    """Write a page that compares the results in several folders, or given ones. Raises `InputError` likewise."""
    from tombola.report.comparison_page import comparison
    from tombola.report.html import render
    from tombola.report.report_data import read_report_data

    if not folders:
        raise InputError("folders: at least one results folder is needed for a comparison")
    _write(out, render(comparison([read_report_data(folder) for folder in folders])))


def write_figures(folder: str | Path | Results, out: str | Path) -> list[Path]:
    """Write each figure of a report to the folder `out`, as NAME.svg, and its numbers as NAME.csv.

    Returns their paths. Raises `InputError` likewise.
    """
    from tombola.report.html import static_svg
    from tombola.report.page_sections import document
    from tombola.report.report_data import read_report_data

    written = []
    for figure in document(read_report_data(folder)).figures:
        table = io.StringIO()
        writer = csv.DictWriter(table, figure.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(figure.rows)
        for suffix, text in (("svg", static_svg(figure)), ("csv", table.getvalue())):
            written.append(Path(out) / f"{figure.name}.{suffix}")
            _write(written[-1], text)
    return written


def _write(path: str | Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
