"""Verify a ticket: train it again from its own provenance, with controls, and test whether its claim holds.

Two questions are answered. Are the recorded figures those of the recorded run? To answer this, the run and its dense
network are trained again. Is the claim more than luck? The recorded run cannot answer this, because the ticket was
selected by it. So the same mask is trained from the same initial weights with other batch orders, and only these
trainings are judged, with the same tests as in experiments.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_cache_dir

from tombola.engines import trains_in_threads
from tombola.experiments.results_schema import Row, Tally
from tombola.pruning.mask import State
from tombola.runs.opening import open_store
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.runs.store import Store
from tombola.studies.conductor import Listener, ListenerGroup, conduct
from tombola.studies.repeated_runs import verification_runs
from tombola.studies.request import INTERMEDIATE, RunRequest, Study
from tombola.tickets.claim import TicketClaim
from tombola.tickets.reproduction import compare_weights
from tombola.tickets.verification import RECORDED_RUN, Verification
from tombola.utils.errors import InputError
from tombola.utils.gpus import count_sharing, worker_gpus
from tombola.utils.launcher import launched_processes
from tombola.utils.seeds import Purpose, derive
from tombola.utils.workers import parallel_executor, worker_count


def default_store(file: str | Path, code: str = "") -> Path:
    """A folder in the user's cache. Its name is a hash of the file's content and, if code from outside tombola trains
    the runs, of `code`, the fingerprint of that code.

    With the store of the experiment, or a store that came with the file, the runs would not be trained again.
    """
    return (
        Path(user_cache_dir("tombola"))
        / "checks"
        / hashlib.sha256(Path(file).read_bytes() + code.encode()).hexdigest()[:32]
    )


def expected_runs(claim: TicketClaim, repeats: int, reinit: int) -> int:
    """The number of runs of a verification."""
    return (claim.k > 0) + 2 + repeats * (2 + reinit)


def verify_ticket(
    claim: TicketClaim,
    *,
    repeats: int = 5,
    reinit: int = 1,
    seed: int = 0,
    store: str | Path | None = None,
    engine: str = "auto",
    device: str = "auto",
    workers: int | None = None,
    checkpoint_every: float = 30.0,
    listeners: Sequence[Listener] = (),
) -> Verification:
    """Train the ticket of `claim` again, once as recorded and with `repeats` other batch orders. In each repeat, the
    dense network and `reinit` draws of other initial weights under the same mask are trained, too. `seed` sets these
    batch orders and draws; with more repeats, the first ones stay the same.

    The other arguments are those of `tombola.run_experiment`. Finished runs are kept in `store`, a folder or URL
    (default: `default_store` of the file), so that the next call resumes. Raises `InputError` if the initial weights
    in the file do not match its provenance, and for invalid arguments.
    """
    for name, number, minimum in (("repeats", repeats, 1), ("reinit", reinit, 0)):
        if number < minimum:
            raise InputError(f"{name}: should be at least {minimum}, not {number}")
    if launched_processes() > 1:
        raise InputError("a ticket is checked by several trainings, each on one device: start it without torchrun")
    if reinit and not claim.draws_anew:
        raise InputError("reinit: should be 0, because the model has the same initial weights for every seed")
    device = claim.choose_device(device, engine, workers, repeats, reinit)
    workers = worker_count(workers, device) if claim.parallel else 1
    trainer = claim.engine(engine, device, count_sharing(workers, device))
    figure = _measure_trained(claim, device)
    run_store = open_store(default_store(claim.path, claim.code) if store is None else store, checkpoint_every)
    run_store.check_writable()
    collector = ResultCollector()
    listener = ListenerGroup([collector, *listeners])
    threads = functools.partial(trains_in_threads, trainer, [claim.dense], device)
    with parallel_executor(workers, threads, worker_gpus(device)) as executor:
        (dense,) = conduct([claim.trunk()], run_store, trainer, executor, listener, workers)
        claim.check_start(claim.workload.masked_state(dense.masked(claim.ticket.mask), run_store.load_state))
        studies = _studies(claim, dense, repeats, reinit, seed)
        conduct(studies, run_store, trainer, executor, listener, workers)
    given = claim.ticket.trained
    ran, at = len(collector.trained), (RECORDED_RUN, claim.provenance.level)
    recorded = next(row for row in collector.rows if (row.replicate, row.level) == at)
    return Verification(
        claim=claim,
        repeats=repeats,
        reinit=reinit,
        seed=seed,
        rows=sorted(collector.rows, key=lambda row: (row.replicate, row.level, row.branch != "ticket", row.draw)),
        tally=Tally(ran, collector.engines.total() - ran, collector.diverged),
        store=run_store.place,
        remembered=recorded.run not in collector.trained,
        engines=dict(collector.engines),
        trained=None if given is None else compare_weights(given, _stored(run_store, recorded.run, given), figure),
    )


def _stored(store: Store, run: str, like: State) -> State:
    """The state that the run ended with, restricted to the buffers that a ticket has."""
    state = store.load_state(run)
    return {name: state[name] for name in like if name in state}


def _measure_trained(claim: TicketClaim, device: str) -> float | None:
    """The figure of the trained weights in the file; None without trained weights, if they are not all finite, or if
    the figure cannot be measured. Raises `InputError` if they belong to another network."""
    trained = claim.ticket.trained
    if trained is None or claim.end_figure is None or not all(t.isfinite().all() for t in trained.values()):
        return None
    try:
        return claim.measure_trained(device)
    except InputError as error:
        raise InputError(f"{claim.path}: {error}") from error


def _studies(claim: TicketClaim, dense: BaseRun, repeats: int, reinit: int, seed: int) -> list[Study[None]]:
    """The recorded run, then its repeats."""
    mask, level = claim.ticket.mask, claim.provenance.level
    studies = [verification_runs(dense, mask, level, dense.seed)]
    for repeat in range(1, repeats + 1):
        drawn = [derive(seed, Purpose.CHECK, repeat, draw) for draw in range(reinit)]
        studies.append(verification_runs(dense, mask, level, derive(seed, Purpose.CHECK, repeat), drawn))
    return studies


@dataclass
class ResultCollector(Listener):
    """Collects the results of all runs."""

    rows: list[Row] = field(default_factory=list)
    trained: set[str] = field(default_factory=set)
    diverged: int = 0
    engines: Counter[str] = field(default_factory=Counter)
    """The number of runs by engine."""

    def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:
        """Add a row, unless the run is intermediate."""
        key = request.run.key
        self.diverged += outcome.measures.diverged
        self.trained |= {key} if trained else set()
        self.engines[outcome.engine] += 1
        if request.branch not in INTERMEDIATE:
            self.rows.append(Row.of(study, request, outcome))
