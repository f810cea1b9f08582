"""Pages: the report of an experiment, and the comparison of several, each one HTML file.

The plotting libraries are imported only when a page is written.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tombola.utils.errors import InputError
from tombola.utils.files import atomic_write

if TYPE_CHECKING:
    from tombola.experiments.results import Results
    from tombola.stats.method_comparison import MethodComparison

REPORT = "report.html"
"""The name of the report in a results folder."""


def write_report(folder: str | Path | Results, out: str | Path) -> None:
    """Write the report of the results in `folder`, or of `Results`, to the file `out`.

    Raises `InputError` if `folder` is not a results folder or `out` cannot be written.
    """
    from tombola.report.html import render
    from tombola.report.page_sections import document
    from tombola.report.report_data import read_report_data

    _write(out, render(document(read_report_data(folder), Path(out))))


def write_comparison(folders: Sequence[str | Path | Results], out: str | Path) -> None:
    """Write a page that compares the results in several folders, or given ones. Raises `InputError` likewise."""
    from tombola.report.comparison_page import comparison
    from tombola.report.html import render
    from tombola.report.report_data import read_report_data

    if not folders:
        raise InputError("folders: at least one results folder is needed for a comparison")
    _write(out, render(comparison([read_report_data(folder) for folder in folders], Path(out), REPORT)))


def write_method_page(comparison: MethodComparison, out: str | Path) -> None:
    """Write the page of a comparison of methods. Raises `InputError` if `out` cannot be written."""
    from tombola.report.html import render
    from tombola.report.method_page import method_page

    _write(out, render(method_page(comparison)))


def write_figures(folder: str | Path | Results, out: str | Path) -> list[Path]:
    """Write each figure of a report to the folder `out` as SVG, PDF and PNG, for paper, and its numbers as CSV. Their
    names have the numbers of the page: figure-1-accuracy.svg.

    Returns their paths. Raises `InputError` likewise.
    """
    from tombola.report.html import static_svg
    from tombola.report.page_sections import document
    from tombola.report.report_data import read_report_data
    from tombola.report.vega import pdf, png

    page, written = document(read_report_data(folder)), []
    for figure in page.figures:
        picture = static_svg(figure)
        for suffix, content in (
            ("svg", picture),
            ("pdf", pdf(picture)),
            ("png", png(picture)),
            ("csv", _csv(figure.columns, figure.rows)),
        ):
            written.append(Path(out) / f"{page.file_name(figure)}.{suffix}")
            _write(written[-1], content)
    return written


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> str:
    table = io.StringIO()
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def _write(path: str | Path, content: str | bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode())
