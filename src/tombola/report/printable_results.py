"""Results that print themselves, in a terminal and in a notebook."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console

from tombola.experiments import results as stored
from tombola.experiments.results import Results
from tombola.report.formatting import table_cells
from tombola.report.prose import conclusion, first_undecided, legend, warnings
from tombola.report.terminal import level_table, show_summary
from tombola.stats.summarise import build_summary
from tombola.stats.summary import LevelSummary, Summary
from tombola.utils.errors import InputError, unknown
from tombola.utils.html_table import html_table

WIDTH = 100
"""Of the printed table, in characters."""


class PrintableResults(Results):
    """Results with their levels, which print as `tombola show` shows them. Iterating gives the levels."""

    @property
    def summary(self) -> Summary:
        """Levels, branches, intervals and verdicts."""
        return build_summary(self)

    @property
    def levels(self) -> list[LevelSummary]:
        """The levels, from dense to sparse."""
        return self.summary.levels

    @property
    def smallest_winning(self) -> LevelSummary | None:
        """The winning level with the fewest weights; None if none wins."""
        return self.summary.smallest_winning

    def __iter__(self) -> Iterator[LevelSummary]:
        return iter(self.levels)

    def __getitem__(self, level: int) -> LevelSummary:
        """The level of this number. Raises `IndexError` if there is none."""
        for found in self.levels:
            if found.level == level:
                return found
        raise IndexError(level)

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
        show_summary(console, self.summary)
        return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"<Results of {self.config.name}: {self._counts}. {conclusion(self.summary)}>"

    def _repr_html_(self) -> str:
        summary = self.summary
        table = level_table(summary)
        head, *rows = table_cells(table)
        winning = [number for number, row in enumerate(rows) if row[-1].startswith("winning")]
        undecided = first_undecided(summary) if summary.smallest_winning else ""
        notes = [str(table.title), undecided, *warnings(summary), legend(summary)] if summary.levels else []
        after = " ".join(note if note.endswith(".") else f"{note}." for note in notes if note)
        return html_table(head, rows, conclusion(summary), after, left=("", "verdict"), bold=winning)

    def plot(self, figure: str | None = None) -> Any:
        """A figure of the report as an Altair chart, by the name that its files have after their number: "accuracy",
        "stop", "validation-curves" and so on; by default those that the report begins with.

        Raises `InputError` for another name, and if these results have no data for the figure.
        """
        from tombola.report.figures.figure import Figure  # the plotting libraries take a while to import
        from tombola.report.figures.notebook_chart import notebook_chart
        from tombola.report.page_sections import document
        from tombola.report.report_data import report_data

        page = document(report_data(self))
        drawn = {each.name: each for each in page.figures}
        missing = {each.name: each.reason for each in page.missing_figures}
        chosen = page.first.of(Figure) if figure is None else [drawn[figure]] if figure in drawn else []
        if chosen:
            return notebook_chart(chosen)
        if figure is None or figure in missing:
            why = " ".join([missing.get(figure or "", "these results have no data for it."), *page.problems])
            raise InputError(f'plot: "{figure or "first screen"}" cannot be drawn: {why}')
        raise unknown("figure", figure, [*drawn, *missing])


def printable(results: Results) -> PrintableResults:
    """The same results, which print themselves."""
    return PrintableResults(**{field.name: getattr(results, field.name) for field in fields(results) if field.init})


def read_results(folder: str | Path, lenient: bool = False) -> PrintableResults:
    """Read a results folder.

    Raises `InputError` if it is not one, or a table is damaged; if `lenient`, a damaged table is left out and
    `Results.problems` names it.
    """
    return printable(stored.read_results(folder, lenient))
