"""Check: train a ticket again from its own record, with controls, and see whether its claim holds.

There are two questions. Are the recorded figures what comes of the recorded run? For that, the very run is trained
again, the dense network's beside it. And is the claim more than luck with that run? Tickets that are written were
chosen, the best of several replicates at a level that the verdict chose, so their own run cannot say. For that, the
same mask is trained from the same start in other orders of batches, and what comes of these alone is judged, by
the tests that judge experiments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from platformdirs import user_cache_dir

from tombola.engines import engine as named_engine
from tombola.engines.eager import reproducible
from tombola.engines.module_learner import ModuleLearner
from tombola.engines.precision import matmul_precision
from tombola.experiments.results import Tally
from tombola.experiments.row import Row
from tombola.runs.initial_state import masked_network
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.runs.store import Store, check_writable
from tombola.studies.checking import verification_runs
from tombola.studies.conductor import Listener, ListenerGroup, conduct
from tombola.studies.request import INTERMEDIATE, RunRequest, Study
from tombola.studies.rewinding import rewound_to
from tombola.tickets.provenance import TicketClaim
from tombola.tickets.reproduction import compare_weights, finite
from tombola.tickets.verification import RECORDED, Verification
from tombola.utils.errors import InputError
from tombola.utils.seeds import Purpose, derive
from tombola.utils.workers import parallel_executor
from tombola.zoo.datasets import prepare
from tombola.zoo.models import build


def default_store(file: Path) -> Path:
    """The default store for a check of `file`: in the user's cache, by what is in the file.

    It is not that of its experiment, which remembers the runs to be trained again, and not beside the file: whoever
    sends a file could send answers along.
    """
    return Path(user_cache_dir("tombola")) / "checks" / hashlib.sha256(file.read_bytes()).hexdigest()[:32]


def expected_runs(claim: TicketClaim, repeats: int, reinit: int) -> int:
    """How many runs a check asks for."""
    return (claim.k > 0) + 2 + repeats * (2 + reinit)


def verify_ticket(
    claim: TicketClaim,
    *,
    repeats: int = 5,
    reinit: int = 1,
    seed: int = 0,
    store: Path | None = None,
    engine: str = "auto",
    device: str = "cpu",
    workers: int = 1,
    checkpoint_every: float = 30.0,
    listeners: Sequence[Listener] = (),
) -> Verification:
    """Train what `tombola.tickets.provenance.read_claim` read again, and in `repeats` other orders of batches, each
    beside the dense network in that order and `reinit` draws of other initial weights under the same mask. `seed`
    decides these orders and draws; more repeats are the same ones and others.

    The other arguments are those of `tombola._run_experiment.run_experiment`. Finished runs are kept in the folder
    `store` (default: `default_store` of the file), and calling it again goes on. Raises `InputError` where the file's
    weights are not those its record leads to, and for anything wrong in the arguments.
    """
    for name, number, least in (("repeats", repeats, 1), ("reinit", reinit, 0)):
        if number < least:
            raise InputError(f"{name}: should be at least {least}, not {number}")
    answers = named_engine(engine, claim.data_dir, device)
    accuracy = trained_accuracy(claim, device)
    remembered = Store(store or default_store(claim.path), checkpoint_every)
    check_writable(remembered.folder)
    noting = ResultCollector()
    listener = ListenerGroup([noting, *listeners])
    with parallel_executor(workers, answers.capacity(claim.dense).threads) as executor:
        trunk = [rewound_to(claim.dense, claim.k)]
        (dense,) = conduct(trunk, remembered, answers, executor, listener, workers)
        claim.check_start(masked_network(dense.masked(claim.ticket.mask), remembered.recall).state_dict())
        studies = _studies(claim, dense, repeats, reinit, seed)
        conduct(studies, remembered, answers, executor, listener, workers)
    trained = claim.ticket.trained
    recorded = next(row for row in noting.rows if (row.replicate, row.level) == (RECORDED, claim.record.level))
    return Verification(
        claim=claim,
        repeats=repeats,
        reinit=reinit,
        seed=seed,
        rows=noting.ordered,
        tally=noting.tally,
        store=remembered.folder,
        remembered=recorded.run not in noting.trained,
        engines=noting.engines,
        trained=None if trained is None else compare_weights(trained, remembered.recall(recorded.run), accuracy),
    )


def trained_accuracy(claim: TicketClaim, device: str = "cpu") -> float | None:
    """What share of the test set the trained weights in the file get right, evaluated as engines do; None where there
    are none, or not all of them are finite. Raises `InputError` where they are of another network."""
    if claim.ticket.trained is None or not finite(claim.ticket.trained):
        return None
    run, on = claim.dense, torch.device(device)
    network = build(run.start)
    try:
        claim.ticket.into(network, trained=True)
    except InputError as error:
        raise InputError(f"{claim.path}: {error}") from error
    with reproducible(0, on), matmul_precision(run.training.precision, on):
        learner = ModuleLearner(network.to(on), run, prepare(run.data, claim.data_dir), on)
        return learner.evaluate("test")[0].accuracy


def _studies(claim: TicketClaim, dense: Run, repeats: int, reinit: int, seed: int) -> list[Study[None]]:
    """The recorded run, then its repeats."""
    mask, level = claim.ticket.mask, claim.record.level
    studies = [verification_runs(dense, mask, level, dense.seed)]
    for repeat in range(1, repeats + 1):
        drawn = [derive(seed, Purpose.CHECK, repeat, draw) for draw in range(reinit)]
        studies.append(verification_runs(dense, mask, level, derive(seed, Purpose.CHECK, repeat), drawn))
    return studies


@dataclass
class ResultCollector:
    """Listens, and notes what came of the runs."""

    rows: list[Row] = field(default_factory=list)
    trained: set[str] = field(default_factory=set)
    answers: int = 0
    diverged: int = 0
    engines: dict[str, int] = field(default_factory=dict)

    def started(self, study: int, ask: RunRequest) -> None:
        """Nothing to note."""

    def answered(self, study: int, ask: RunRequest, outcome: Outcome, trained: bool) -> None:
        """Note a row, unless it is of the trunk."""
        key, mask = ask.run.key, ask.run.mask
        self.answers += 1
        self.diverged += outcome.measures.diverged
        self.trained |= {key} if trained else set()
        self.engines[outcome.engine] = self.engines.get(outcome.engine, 0) + 1
        if ask.branch not in INTERMEDIATE:
            self.rows.append(
                Row(study, ask.level, ask.branch, ask.draw, mask.count, mask.size, key, outcome.measures)
            )

    @property
    def ordered(self) -> list[Row]:
        """The rows in the order of studies, whatever order they were answered in."""
        return sorted(self.rows, key=lambda row: (row.replicate, row.level, row.branch != "ticket", row.draw))

    @property
    def tally(self) -> Tally:
        return Tally(len(self.trained), self.answers - len(self.trained), self.diverged)
