"""The log of an experiment: `log.txt` in its results folder, one line for each event, with its time."""

from __future__ import annotations

import logging
import platform
from logging.handlers import MemoryHandler
from pathlib import Path
from types import TracebackType
from typing import Self

from tombola.runs.outcome import Measures, Outcome
from tombola.studies.conductor import Listener
from tombola.studies.request import RequestId, RunRequest
from tombola.utils.files import writing
from tombola.utils.libraries import versions
from tombola.utils.text import first_line, plural
from tombola.utils.workers import processor

LOG = "log.txt"
"""The name of the file. Later commands append to it."""

FORM = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")

MOST = 100_000
"""The largest number of records that are kept until the file is opened."""


class _Gathered(MemoryHandler):
    """Keeps records until it has a target. Warnings that no other handler prints are still printed, as Python does
    without any handler."""

    def __init__(self) -> None:
        super().__init__(MOST, flushLevel=logging.CRITICAL + 1)

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        package, last = logging.getLogger("tombola"), logging.lastResort
        alone = not logging.getLogger().handlers and package.handlers[:1] == [self]
        if alone and record.name != EVENTS and last is not None and record.levelno >= last.level:
            last.handle(record)


class _LogFile(logging.FileHandler):
    """The file. If it cannot be written, for example on a full disk, training continues."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, mode="a", encoding="utf-8", errors="replace")
        self.setFormatter(FORM)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        return


EVENTS = "tombola.experiment"
"""The logger name of the events."""


class ExperimentLog(Listener):
    """Writes what happens in an experiment to `log.txt` once `open` is called: its events, and the warnings of this
    package in this process since the log was made. Use it as a context manager."""

    def __init__(self) -> None:
        self._gathered = _Gathered()
        self._file: _LogFile | None = None
        self._events = logging.Logger(EVENTS, logging.INFO)  # no parent, so the user's handlers do not get every run
        self._events.addHandler(self._gathered)
        self._under_way: dict[tuple[int, RequestId], str] = {}
        self._answered: set[tuple[int, RequestId]] = set()

    def __enter__(self) -> Self:
        logging.getLogger("tombola").addHandler(self._gathered)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger("tombola").removeHandler(self._gathered)
        self._gathered.close()
        if self._file is not None:
            self._file.close()

    def open(self, folder: Path) -> None:
        """Write to the log of this results folder. Raises `InputError` if it cannot be written."""
        with writing(folder / LOG):
            self._file = _LogFile(folder / LOG)
        self._gathered.setTarget(self._file)
        self._gathered.flushLevel = logging.NOTSET
        self._gathered.flush()

    def begin(self, command: str | None, plan: str) -> None:
        """Log the command, the versions and the plan."""
        self.note(f"command: {command or 'find_ticket or run_experiment, called in Python'}")
        libraries = ", ".join(f"{name} {version}" for name, version in versions().items())
        self.note(f"versions: {libraries}, Python {platform.python_version()} on {processor()}")
        self.note(f"plan: {plan}")

    def note(self, text: str) -> None:
        """Log a line."""
        self._events.info("%s", " ".join(text.split()))

    def started(self, study: int, request: RunRequest) -> None:
        """See `Listener`."""
        self._under_way[study, request.request_id] = named = _named(study, request)
        self._events.info("started: %s", named)

    def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:
        """See `Listener`. A study may request the same run again."""
        place = study, request.request_id
        self._under_way.pop(place, None)
        if place in self._answered:
            return
        self._answered.add(place)
        how = f"finished in {outcome.seconds:.2f} s" if trained else "taken from the store"
        self._events.info("%s: %s: %s", how, _named(study, request), _figures(outcome.measures))

    def failed(self, study: int, request: RunRequest, error: Exception, again: bool) -> None:
        """See `Listener`."""
        self._under_way.pop((study, request.request_id), None)
        then = "it is tried again" if again else "it is given up"
        self._events.error("failed: %s; %s", _named(study, request), then, exc_info=error)

    def stopped(self, error: BaseException) -> None:
        """Log what stopped the experiment early, and which runs were training then."""
        training = "; ".join(self._under_way.values()) or "nothing"
        finished = plural(len(self._answered), "run")
        if isinstance(error, KeyboardInterrupt):
            self._events.warning("interrupted: %s finished; in training: %s", finished, training)
        else:
            self._events.error(
                "stopped: %s; %s finished; in training: %s",
                first_line(error) if isinstance(error, Exception) else type(error).__name__,
                finished,
                training,
                exc_info=error,
            )


def append_to_log(folder: Path, text: str) -> None:
    """Add a line to the log of a results folder, after its experiment has ended."""
    with ExperimentLog() as log:
        log.open(folder)
        log.note(text)


def _named(study: int, request: RunRequest) -> str:
    draw = f" draw {request.draw}" if request.draw else ""
    point = f" at {request.point.share:.2f} of the line from {request.point.k}it" if request.point else ""
    return f"replicate {study}, {request.branch} level {request.level}{draw}{point} (run {request.run.key})"


def _figures(measures: Measures) -> str:
    """What was measured, in a few words: at early stop on the test set, if that is known."""
    if measures.diverged:
        return f"diverged after {measures.iterations:,} iterations"
    figures = measures.figures
    shown = {name: value for name, value in figures.items() if name.startswith("test_") and name.endswith("_at_stop")}
    stop = [] if measures.stop_iteration is None else [f"early stop at iteration {measures.stop_iteration:,}"]
    values = [f"{name.replace('_', ' ')} {value:.4g}" for name, value in (shown or figures).items()]
    return ", ".join([*stop, *values]) or "no figures"
