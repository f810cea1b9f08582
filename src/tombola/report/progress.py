"""One progress display for a whole experiment."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from tombola.runs.outcome import Outcome
from tombola.studies.request import Position, RunRequest

PLAIN_EVERY = 60.0
"""Seconds between lines where there is no terminal to draw on."""


class ProgressDisplay:
    """Listens to the conductor; shows the runs done, what is training now, and the time left.

    It appears with the first run. Where there is no terminal it is a line a minute.
    """

    def __init__(self, console: Console, runs: int, doing: str = "searching") -> None:
        self._console = console
        self._runs = runs
        self._answered: set[tuple[int, Position]] = set()
        self._trained = 0
        self._began = self._said = time.monotonic()
        self._training: dict[tuple[int, RunRequest], None] = {}
        self._progress = Progress(
            TextColumn(f"[bold]{doing}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("runs · {task.description}"),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=runs)

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def started(self, study: int, ask: RunRequest) -> None:
        """Show what is training."""
        self._training[study, ask] = None
        self._show()

    def answered(self, study: int, ask: RunRequest, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
        """Count it. A study may ask again for what it knows."""
        self._training.pop((study, ask), None)
        self._answered.add((study, ask.place))
        self._trained += trained
        self._show()

    def _show(self) -> None:
        if self._console.is_terminal:
            self._progress.start()
            self._progress.update(
                self._task, completed=len(self._answered), description=f"{self._left()} · {self._current()}"
            )
        elif time.monotonic() - self._said > PLAIN_EVERY:
            self._said = time.monotonic()
            self._console.print(
                f"{len(self._answered)}/{self._runs} runs · {self._left()} · {self._current()}", soft_wrap=True
            )

    def _current(self) -> str:
        levels = Counter((ask.branch, ask.level) for _, ask in self._training)
        return ", ".join(
            f"{branch} level {level}" + (f" ×{times}" if times > 1 else "")
            for (branch, level), times in sorted(levels.items())
        )

    def _left(self) -> str:
        """The time left, supposing that runs still to do take as long as those trained so far."""
        if self._trained == 0:
            return "estimating the time"
        seconds = (time.monotonic() - self._began) / self._trained * (self._runs - len(self._answered))
        hours, minutes = divmod(round(seconds / 60), 60)
        if hours:
            return f"{hours} h {minutes} min left"
        return f"{minutes} min left" if seconds >= 60 else f"{round(seconds)} s left"
