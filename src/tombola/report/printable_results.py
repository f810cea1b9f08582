"""Results that print themselves, in a terminal and in a notebook."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cached_property
from html import escape
from pathlib import Path

from rich.console import Console

from tombola.experiments import results as stored
from tombola.experiments.results import Results
from tombola.report.prose import conclusion
from tombola.report.terminal import show_summary
from tombola.stats.summarise import build_summary
from tombola.stats.summary import LevelSummary, Summary
from tombola.utils.text import plural

WIDTH = 100
"""Of the printed table, in characters."""


class PrintableResults(Results):
    """Results with their levels, which print as `tombola show` shows them. Iterating gives the levels."""

    @cached_property
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
        counts = f"{plural(self.config.replicates, 'replicate')}, {plural(len(self.rows), 'run')}"
        return f"<Results of {self.config.name}: {counts}. {conclusion(self.summary)}>"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def printable(results: Results) -> PrintableResults:
    """The same results, which print themselves."""
    return PrintableResults(**vars(results))


def read_results(folder: str | Path, lenient: bool = False) -> PrintableResults:
    """Read a results folder.

    Raises `InputError` if it is not one, or a table is damaged; if `lenient`, a damaged table is left out and
    `Results.problems` names it.
    """
    return printable(stored.read_results(folder, lenient))
