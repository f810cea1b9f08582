"""Live: how a search with the user's own function is shown while it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from rich.console import Console

from tombola.report.level_table import as_html
from tombola.report.progress import ProgressDisplay
from tombola.runs.outcome import Outcome
from tombola.stats.level_table import LevelTable
from tombola.studies.conductor import Listener
from tombola.studies.request import Position, RunRequest


class Silent:
    """Shows nothing."""

    def started(self, study: int, ask: RunRequest) -> None:
        """See `Listener`."""

    def answered(self, study: int, ask: RunRequest, outcome: Outcome, trained: bool) -> None:
        """See `Listener`."""


class NotebookDisplay:
    """The table of levels in a notebook's cell, which grows as trainings end."""

    def __init__(self, levels: LevelTable, runs: int) -> None:
        from IPython.display import display  # a notebook has it

        self._levels = levels
        self._runs = runs
        self._answered: set[tuple[int, Position]] = set()
        self._now = "starting"
        self._closed = False
        self._handle: Any = display(self, display_id=True)  # type: ignore[no-untyped-call]

    def started(self, study: int, ask: RunRequest) -> None:
        """See `Listener`."""
        self._now = f"replicate {study}, {ask.branch} level {ask.level}"
        self._handle.update(self)

    def answered(self, study: int, ask: RunRequest, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
        """See `Listener`."""
        self._answered.add((study, ask.place))  # a study may ask again for what it knows
        self._handle.update(self)

    def _repr_html_(self) -> str:
        if self._closed:
            return as_html(self._levels)
        return f"{as_html(self._levels)}<p>{len(self._answered)} of {self._runs} trainings · {self._now}</p>"

    def close(self) -> None:
        """The search has ended."""
        self._closed = True
        self._handle.update(self)

    def __repr__(self) -> str:
        return f"{len(self._answered)} of {self._runs} trainings"


def in_notebook() -> bool:
    """Whether this runs in a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


@contextmanager
def live(levels: LevelTable, runs: int, progress: bool | None) -> Iterator[Listener]:
    """Show a search of so many `runs` as it goes; None for `progress` means where somebody is looking."""
    console = Console(stderr=True)
    if progress is False or (progress is None and not (in_notebook() or console.is_terminal)):
        yield Silent()
    elif in_notebook():
        with closing(NotebookDisplay(levels, runs)) as notebook:
            yield notebook
    else:
        with ProgressDisplay(console, runs) as display:
            yield display
