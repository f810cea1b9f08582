"""The results of a search as HTML, for notebooks."""

from __future__ import annotations

import io

from rich.console import Console

from tombola.experiments.results import Results
from tombola.report.terminal import show_summary
from tombola.stats.summarise import build_summary


def results_text(results: Results) -> str:
    """As `tombola show` prints them."""
    console = Console(file=io.StringIO(), width=100, color_system=None)
    show_summary(console, build_summary(results))
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]


def results_html(results: Results) -> str:
    """The same, preformatted."""
    from html import escape

    return f"<pre>{escape(results_text(results))}</pre>"
