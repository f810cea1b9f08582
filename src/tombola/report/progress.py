"""The progress of an experiment, or of a search with the user's own training function, while it runs."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from html import escape
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from tombola.experiments.growth import growth_of_folder, growth_text
from tombola.experiments.planning.time_left import TimeLeft
from tombola.experiments.results_collector import ResultsCollector
from tombola.report.console import NO_LIMIT, LineConsole, print_text, print_unbroken, wrapped
from tombola.report.printable_results import printable
from tombola.runs.outcome import Outcome
from tombola.studies.conductor import Listener, ListenerGroup
from tombola.studies.request import RequestId, RunRequest
from tombola.utils.text import one_line, plural

LINE_INTERVAL = 60.0
"""Seconds between lines if the console is not a terminal."""

BAR = 24
"""The width of the bar, in characters."""

WIDE = 100
"""A terminal of this width has space for the whole bar beside the text."""

MAX_ERRORS = 10
"""How many reasons are shown why runs are trained again."""

UPDATE_PAUSE = 20
"""How many times as long as it took to show the results in a notebook, or to estimate the time left, they stay."""


class ProgressDisplay(Listener):
    """Shows the finished runs, what is training now, and the time left, from the first run on.

    A bar in a terminal; elsewhere one line a minute.
    """

    def __init__(self, console: Console, runs: int, action: str = "searching") -> None:
        self._console = console
        self._runs = runs
        self._answered: set[tuple[int, RequestId]] = set()
        self._trained = 0
        self._time_left: TimeLeft | None = None
        self._workers: int | None = 1
        self._at_once = 1  # as many have been training at once
        self._estimate, self._next_estimate = "", 0.0
        self._began = self._printed = time.monotonic()
        self._training: set[tuple[int, RequestId]] = set()
        self._levels = Counter[tuple[str, int]]()  # of those that are training, by branch and level
        self._nodes: Callable[[], int] | None = None
        self._slots: Callable[[], int] | None = None
        self._lost = 0
        self._errors: set[str] = set()  # that were shown
        self._stage = ""  # what is done besides training
        bar = BAR if console.width >= WIDE else BAR // 3
        self._space = console.width - len(f"{action} {'':{bar}} {runs}/{runs} runs · ") - 1
        self._progress = Progress(
            TextColumn(f"[bold]{action}"),
            BarColumn(bar_width=bar),
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

    @property
    def wants_trial(self) -> bool:
        """Whether somebody looks at it from the beginning, so that a short trial to estimate the time is worth it."""
        return self._console.is_terminal

    def stage(self, what: str) -> None:
        """Show what is done besides training, such as writing the report, until a training starts or ends."""
        self._stage = what
        if self._console.is_terminal:
            self._show()

    def expect(self, time_left: TimeLeft, workers: int | None) -> None:
        """Show the time that `time_left` estimates, if so many runs are trained at once (None: as many as it turns
        out), instead of one that follows from the mean of those trained so far."""
        self._time_left, self._workers = time_left, workers

    def watch(self, executor: Executor) -> None:
        """Show how many nodes train, if this executor has methods `nodes` and `slots` that say so."""
        self._nodes, self._slots = getattr(executor, "nodes", None), getattr(executor, "slots", None)

    def started(self, study: int, request: RunRequest) -> None:
        """Show the run as training."""
        self._stage = ""
        self._training.add((study, request.request_id))
        self._at_once = max(self._at_once, len(self._training))
        self._levels[request.branch, request.level] += 1
        self._show()

    def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:
        """Count the run; a study may request the same run again."""
        self._stage = ""
        place = study, request.request_id
        if self._time_left is not None and place not in self._answered:
            self._time_left.answered(study, request, outcome, trained)
        self._ended(study, request)
        self._answered.add(place)
        self._trained += trained
        self._show()

    def failed(self, study: int, request: RunRequest, error: Exception, again: bool) -> None:
        """Count the run as lost, and say why, once for each reason."""
        self._ended(study, request)
        self._lost += 1
        reason = one_line(error) or type(error).__name__
        told = f"{'is trained again' if again else 'is given up'}: {reason}"
        if told not in self._errors and len(self._errors) < MAX_ERRORS:
            self._errors.add(told)
            what = f"{request.branch} level {request.level}, replicate {study}"
            print_text(self._console, f"{what}, {told}")
        self._show()

    def _ended(self, study: int, request: RunRequest) -> None:
        if (place := (study, request.request_id)) in self._training:
            self._training.remove(place)
            self._levels[request.branch, request.level] -= 1

    def _show(self) -> None:
        finished = len(self._answered)
        if self._console.is_terminal:
            if (began := time.monotonic()) >= self._next_estimate:
                self._estimate, ended = self._left(), time.monotonic()
                self._next_estimate = ended + (ended - began) * UPDATE_PAUSE
            description = self._description(self._estimate, self._space)
            self._progress.update(self._task, completed=finished, description=description)
            self._progress.start()
        elif time.monotonic() - self._printed > LINE_INTERVAL:
            self._printed = time.monotonic()
            description = self._description(self._left(), NO_LIMIT)
            print_unbroken(self._console, f"{finished}/{self._runs} runs · {description}")

    def _description(self, left: str, space: int) -> str:
        """The stage; otherwise the time left, and what trains, as far as there is space."""
        if self._stage:
            return next(wrapped(self._stage, space))
        if len(self._answered) >= self._runs:
            return "finishing"
        text, between = left, " · "
        for part in (self._cluster(), *self._current()):
            if part and len(f"{text}{between}{part}") > space:
                break
            if part:
                text += between + part
                between = ", " if part != self._cluster() else " · "
        return text

    def _cluster(self) -> str:
        """The nodes, the runs that train on them, and those that were lost."""
        parts = []
        if self._nodes is not None:
            submitted = len(self._training)  # some ahead of the workers
            under_way = submitted if self._slots is None else min(submitted, self._slots())
            parts = [plural(self._nodes(), "node"), f"{under_way} under way"]
        return ", ".join(parts + [f"{self._lost:,} lost"] * bool(self._lost))

    def _current(self) -> list[str]:
        """The trainings that run, by branch and level."""
        return [
            f"{branch} level {level}" + (f" ×{times}" if times > 1 else "")
            for (branch, level), times in sorted((+self._levels).items())
        ]

    def _left(self) -> str:
        """The time left, if it can be estimated."""
        seconds = self._seconds_left()
        if seconds is None:
            return "estimating the time"
        hours, minutes = divmod(round(seconds / 60), 60)
        if hours:
            return f"{hours} h {minutes} min left"
        return f"{minutes} min left" if seconds >= 60 else f"{max(1, round(seconds))} s left"

    def _seconds_left(self) -> float | None:
        """By the costs of what is still expected; without these, as many times the mean so far."""
        if self._time_left is not None:
            return self._time_left.likely_seconds(self._workers or self._at_once)
        if self._trained < 2:  # the first has to load and compile what the others find there
            return None
        return (time.monotonic() - self._began) / self._trained * (self._runs - len(self._answered))


class NotebookDisplay(Listener):
    """The results in a notebook cell, updated as trainings end."""

    def __init__(self, collector: ResultsCollector, runs: int, folder: Path | None = None, note: str = "") -> None:
        """`folder` is the results folder, if one is written; `note` is shown until the search ends."""
        from IPython.display import display  # only notebooks need it

        self._collector = collector
        self._runs = runs
        self._folder = folder
        self._note = note
        self._answered: set[tuple[int, RequestId]] = set()
        self._trained = 0
        self._current = "starting"
        self._closed = False
        self._next_update = 0.0
        self._handle: Any = display(self, display_id=True)  # type: ignore[no-untyped-call]

    def started(self, study: int, request: RunRequest) -> None:
        """See `Listener`."""
        self._current = f"replicate {study}, {request.branch} level {request.level}"
        self._update()

    def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
        """See `Listener`."""
        self._answered.add((study, request.request_id))  # a study may request the same run again
        self._trained += trained
        self._update()

    def _update(self) -> None:
        began = time.monotonic()
        if began >= self._next_update:
            self._handle.update(self)
            ended = time.monotonic()
            self._next_update = ended + (ended - began) * UPDATE_PAUSE

    def _repr_html_(self) -> str:
        results = printable(self._collector.results(finished=self._closed))
        if self._closed:
            return f"{results._repr_html_()}<p>{escape(self._ended)}</p>"
        bar = f'<progress value="{len(self._answered)}" max="{self._runs}"></progress>'
        note = f"<p>{escape(self._note)}</p>" if self._note else ""
        return f"{note}<p>{bar} {self!r} · {self._current}</p>{results._repr_html_()}"

    @property
    def _ended(self) -> str:
        """What was trained, and where the results are."""
        known = len(self._answered) - self._trained
        text = f"{plural(self._trained, 'run')} trained, {known:,} from the store."
        return text if self._folder is None else f"{text} Results are in {self._folder}."

    def close(self) -> None:
        """Replace the progress by what was trained, when the search has ended."""
        self._closed = True
        self._handle.update(self)

    def stop(self) -> None:
        """Show how far the search has come, when an error or the user stops it."""
        self._current = "stopped"
        self._handle.update(self)

    def __repr__(self) -> str:
        return self._ended if self._closed else f"{len(self._answered)} of {plural(self._runs, 'training')}"


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


@contextmanager
def live_display(
    collector: ResultsCollector, runs: int, progress: bool | None, folder: Path | None = None
) -> Iterator[Listener]:
    """Show the progress of a search of `runs` runs, unless `progress` is False: in a notebook its results, otherwise
    on standard error a `ProgressDisplay`. Before that, say by what it extends the experiment in `folder`, and at the
    end where that is.

    Raises `InputError` if the folder has another experiment.
    """
    if progress is False:
        yield ListenerGroup([])
        return
    grown = {} if folder is None else growth_of_folder(folder, collector.config)
    note = growth_text(folder, grown) if folder is not None and grown else ""
    if in_notebook():
        notebook = NotebookDisplay(collector, runs, folder, note)
        try:
            yield notebook
        except BaseException:
            notebook.stop()
            raise
        notebook.close()
        return
    if note:
        print_text(LineConsole(stderr=True), note)
    try:
        with ProgressDisplay(LineConsole(stderr=True), runs) as display:
            yield display
    except KeyboardInterrupt:
        if folder is not None:
            print_text(LineConsole(stderr=True), "Interrupted. Finished runs are kept, and the same call resumes.")
        raise
    if folder is not None:
        console = LineConsole(stderr=True)
        print_text(console, "Results are in")
        print_unbroken(console, f"  {folder}")


def announce(listeners: Iterable[Listener], stage: str) -> None:
    """Tell those of the listeners that show progress what is done besides training."""
    for listener in listeners:
        if isinstance(listener, ProgressDisplay):
            listener.stage(stage)
