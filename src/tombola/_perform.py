"""perform: an experiment from its studies to its results and its ticket, whoever trains."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from tombola.engines import Engine
from tombola.experiments.experiment import Experiment
from tombola.experiments.results import TICKET
from tombola.experiments.results_collector import ResultsCollector
from tombola.experiments.results_writer import ResultsWriter
from tombola.pruning.mask import State
from tombola.report.printable_results import PrintableResults, printable
from tombola.report.prose import conclusion
from tombola.runs.store import Store, check_writable
from tombola.studies.conductor import Listener, ListenerGroup, conduct
from tombola.tickets.selection import ticket_of
from tombola.zoo.models.description import Start

log = logging.getLogger(__name__)


def collector_of(
    experiment: Experiment, store: Store, command: str | None = None, find_copies: bool = False
) -> ResultsCollector:
    """Collects the results of an experiment."""
    workload = experiment.workload

    def initial_state(start: Start) -> State:
        return workload.initial_state(start, store.load_state)

    return ResultsCollector(experiment.config, initial_state, workload.matrix_weights, command, find_copies)


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
) -> PrintableResults:
    """Train what the store lacks, `workers` runs at a time, and write a results folder, if `out` is given, with the
    smallest winning ticket. Returns the results. `remote` is explained in `conduct`.

    Raises `InputError` if the folder cannot be used, and what `conduct` raises.
    """
    writer = None if out is None else ResultsWriter(out, collector)
    check_writable(store.folder)
    listener = ListenerGroup([writer or collector, *listeners])
    try:
        conduct(experiment.studies(), store, engine, executor, listener, workers, remote)
    except BaseException:
        if writer is not None:
            writer.interrupted()
        raise
    results = printable(collector.results(finished=True))
    if writer is not None:
        summary, path = results.summary, writer.folder / TICKET
        if summary.smallest_winning is None:
            if path.exists():
                log.warning("no level is winning any more: %s, which was, is removed", path)
                path.unlink()
        else:
            level = summary.smallest_winning
            ticket_of(experiment, collector, summary, level, store, conclusion(summary)).save(path)
        writer.write(finished=True)
    return results
