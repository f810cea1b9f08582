"""perform: runs an experiment, from its studies to its results and its ticket, for recipes and custom functions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tombola.engines import Engine
from tombola.experiments.experiment import Experiment, count_runs
from tombola.experiments.experiment_log import ExperimentLog
from tombola.experiments.planning.expected_runs import expected_work
from tombola.experiments.planning.time_left import TimeLeft
from tombola.experiments.results import TICKET
from tombola.experiments.results_collector import ResultsCollector
from tombola.experiments.results_writer import ResultsWriter
from tombola.pruning.mask import State
from tombola.report.formatting import density
from tombola.report.printable_results import PrintableResults, printable
from tombola.report.progress import ProgressDisplay, announce
from tombola.report.prose import conclusion, counts
from tombola.runs.outcome import Outcome
from tombola.runs.store import Store
from tombola.studies.conductor import Listener, ListenerGroup, conduct
from tombola.studies.rehearsal import Rehearsed
from tombola.studies.request import RunRequest, Study
from tombola.tickets.selection import ticket_of
from tombola.utils.text import plural
from tombola.zoo.models.description import Start

logger = logging.getLogger(__name__)


def collector_of(
    experiment: Experiment, store: Store, command: str | None = None, find_copies: bool = False, among: int = 1
) -> ResultsCollector:
    """A collector for the results of an experiment, which is one of `among` experiments that run at the same time."""
    workload = experiment.workload

    def initial_state(start: Start) -> State:
        return workload.initial_state(start, store.load_state)

    about = (experiment.config, initial_state, workload.matrix_weights, command, find_copies, among)
    return ResultsCollector(*about, workload.pruner.structure)


@dataclass
class Performance:
    """An experiment to be run, and where its results go."""

    experiment: Experiment
    collector: ResultsCollector
    out: Path | None
    """The results folder; None if no folder is to be written."""
    listeners: Sequence[Listener] = ()
    log: ExperimentLog | None = None
    """A log to be opened in the results folder."""
    results: PrintableResults | None = None
    """The results, once the experiment is finished."""
    _writer: ResultsWriter | None = field(init=False)

    def __post_init__(self) -> None:
        """Raises `InputError` if the folder cannot be used."""
        self._writer = None if self.out is None else ResultsWriter(self.out, self.collector)
        if self.log is not None and self._writer is not None:
            self.log.open(self._writer.folder)

    @property
    def listener(self) -> Listener:
        """The listener for this experiment's runs."""
        logs = [] if self.log is None or self._writer is None else [self.log]
        return ListenerGroup([*logs, self._writer or self.collector, *self.listeners])

    def begin(self, engine: Engine[Any], workers: int | None, store: Store) -> None:
        """Log what will be trained."""
        if self.log is None:
            return
        config = self.experiment.config
        name, device = getattr(engine, "name", type(engine).__name__), getattr(engine, "device", None)
        on, slots = f" on {device}" if device else "", f", {workers} at once" if workers else ""
        self.log.begin(
            self.collector.command,
            f"{config.name}: {plural(config.replicates, 'replicate')}, {plural(config.search.levels, 'level')}, "
            f"{plural(count_runs(config), 'run')}; engine {name}{on}{slots}; "
            f"store {store.place}",
        )

    def finish(self, store: Store) -> None:
        """Write the results, with the smallest winning ticket."""
        whole = len(self.experiment.replicates) == self.experiment.config.replicates
        results, writer = printable(self.collector.results(finished=whole)), self._writer
        if writer is not None:
            results = results.stored_in(writer.folder)
            announce(self.listeners, "writing the results")
            summary, path = results.summary, writer.folder / TICKET
            if summary.smallest_winning is None:
                if path.exists():
                    logger.warning("no level is winning any more: %s, which was, is removed", path)
                    path.unlink()
            else:
                level = summary.smallest_winning
                ticket_of(self.experiment, self.collector, summary, level, store, conclusion(summary)).save(path)
            writer.write(finished=True)
            self._log_results(results)
        self.results = results

    def _log_results(self, results: PrintableResults) -> None:
        if self.log is None:
            return
        summary = results.summary
        for level in summary.levels:
            reason = f" ({level.verdict.reason})" if level.verdict.reason else ""
            self.log.note(f"level {level.level}, {density(level)} of the weights: {level.verdict.state}{reason}")
        self.log.note(conclusion(summary))
        self.log.note(f"{counts(results.tally)} Results are in {self.out}.")

    def between_trainings(self) -> None:
        """Write the results so far, if that is due."""
        if self._writer is not None and self.results is None:
            self._writer.between_trainings()

    def interrupted(self, error: BaseException) -> None:
        """Write the results so far, unless the experiment is finished."""
        if self.log is not None and self.results is None:
            self.log.stopped(error)
        if self._writer is not None and self.results is None:
            self._writer.interrupted()


def perform(
    experiment: Experiment,
    store: Store,
    engine: Engine[Any],
    executor: Executor,
    collector: ResultsCollector,
    out: Path | None,
    listeners: Sequence[Listener] = (),
    workers: int | None = 1,
    remote: bool = False,
    log: ExperimentLog | None = None,
) -> PrintableResults:
    """Train the runs that the store lacks, `workers` at a time. If `out` is given, write a results folder with the
    smallest winning ticket and a `log`. Returns the results. `remote` is explained in `conduct`.

    Raises `InputError` if the folder cannot be used, and what `conduct` raises.
    """
    performance = Performance(experiment, collector, out, listeners, log)
    return perform_all([performance], store, engine, executor, workers, remote)[0]


def perform_all(
    performances: Sequence[Performance],
    store: Store,
    engine: Engine[Any],
    executor: Executor,
    workers: int | None = 1,
    remote: bool = False,
    listeners: Sequence[Listener] = (),
) -> list[PrintableResults]:
    """Run several experiments at the same time, so that no worker is idle because of one of them. Runs that several
    need are trained once. Each experiment is finished as soon as its own studies end. `listeners` are notified of the
    runs of all experiments, with studies numbered across them. See `perform`."""
    store.check_writable()
    studies: list[Study[None]] = []
    told: list[tuple[Listener, int]] = []
    for performance in performances:
        own = performance.experiment.studies()
        performance.begin(engine, workers, store)
        studies += _and_then(own, partial(performance.finish, store))
        told += [(performance.listener, replicate) for replicate in performance.experiment.replicates]
    listener = ListenerGroup([_Dispatcher(told, performances), *listeners])
    for display, expected in _displays(performances, listeners):
        display.watch(executor)
        slots: Callable[[], int] | None = getattr(executor, "slots", None)
        at_once = slots() if slots is not None else workers
        time_left = TimeLeft(expected, getattr(engine, "data_dir", None), at_once or 1)
        measurable = not remote and getattr(engine, "device", None) == "cpu"
        first = performances[0].experiment
        if display.wants_trial and measurable and store.peek(first.dense(first.replicates[0])) is None:
            display.stage("measuring the speed")
            time_left.measure(engine)  # the store has no measured cost
        display.expect(time_left, at_once)
        display.stage("starting to train")
    try:
        conduct(studies, store, engine, executor, listener, workers, remote)
    except BaseException as error:
        for performance in performances:
            performance.interrupted(error)
        raise
    return [performance.results for performance in performances if performance.results is not None]


def _displays(
    performances: Sequence[Performance], listeners: Sequence[Listener]
) -> Iterator[tuple[ProgressDisplay, Iterator[tuple[int, Rehearsed]]]]:
    """Each display, with the runs that it will be notified of and the numbers of their studies."""
    for performance in performances:
        for each in performance.listeners:
            if isinstance(each, ProgressDisplay):
                yield each, expected_work(performance.experiment)
    for each in listeners:
        if isinstance(each, ProgressDisplay):
            yield each, _numbered_through(performances)


def _numbered_through(performances: Sequence[Performance]) -> Iterator[tuple[int, Rehearsed]]:
    before = 0
    for performance in performances:
        replicates = performance.experiment.replicates
        for replicate, expected in expected_work(performance.experiment):
            yield before + replicates.index(replicate), expected
        before += len(replicates)


def _and_then(studies: Sequence[Study[None]], finish: Callable[[], None]) -> list[Study[None]]:
    """The same studies; `finish` is called when the last of them ends."""
    left = len(studies)

    def followed(study: Study[None]) -> Study[None]:
        nonlocal left
        yield from study
        left -= 1
        if left == 0:
            finish()

    return [followed(study) for study in studies]


@dataclass(frozen=True)
class _Dispatcher(Listener):
    """Notifies each experiment's listener of its own studies."""

    listeners: Sequence[tuple[Listener, int]]
    """For each study, its experiment's listener and the number of the study in that experiment."""
    performances: Sequence[Performance]

    def started(self, study: int, request: RunRequest) -> None:
        listener, replicate = self.listeners[study]
        listener.started(replicate, request)

    def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:
        listener, replicate = self.listeners[study]
        listener.answered(replicate, request, outcome, trained)

    def failed(self, study: int, request: RunRequest, error: Exception, again: bool) -> None:
        listener, replicate = self.listeners[study]
        listener.failed(replicate, request, error, again)

    def between_trainings(self) -> None:
        for performance in self.performances:
            performance.between_trainings()
