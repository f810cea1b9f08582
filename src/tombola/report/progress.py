"""One progress display for a whole experiment."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from tombola.outcome import Outcome
from tombola.studies import Ask


class ProgressDisplay:
    """Listens to the conductor; shows the runs done, what is training now, and the time left."""

    def __init__(self, console: Console, runs: int) -> None:
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("runs · {task.fields[left]} · {task.fields[current]}"),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("searching", total=runs, left="starting", current="")
        self._began = time.monotonic()
        self._trained = 0
        self._training: dict[tuple[int, Ask], None] = {}

    def __enter__(self) -> ProgressDisplay:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def started(self, study: int, ask: Ask) -> None:
        """Show what is training."""
        self._training[study, ask] = None
        self._show()

    def answered(self, study: int, ask: Ask, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
        """Count it."""
        self._training.pop((study, ask), None)
        self._trained += trained
        self._progress.advance(self._task)
        self._show()

    def _show(self) -> None:
        levels = Counter((ask.branch, ask.level) for _, ask in self._training)
        current = ", ".join(
            f"{branch} level {level}" + (f" ×{times}" if times > 1 else "")
            for (branch, level), times in sorted(levels.items(), key=str)
        )
        self._progress.update(self._task, left=self._left(), current=current)

    def _left(self) -> str:
        """The time left, supposing that runs still to do take as long as those trained so far."""
        task = self._progress.tasks[0]
        if self._trained == 0 or task.total is None:
            return "estimating"
        seconds = (time.monotonic() - self._began) / self._trained * (task.total - task.completed)
        hours, minutes = divmod(round(seconds / 60), 60)
        if hours:
            return f"{hours} h {minutes} min left"
        return f"{minutes} min left" if seconds >= 60 else f"{round(seconds)} s left"
