"""Find a ticket in any network, with any training function."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from tombola.engines.custom.engine import FIGURE, CustomEngine
from tombola.engines.custom.fingerprint import fingerprint
from tombola.engines.custom.run import CustomModel, CustomRun, Evaluate, Model, Train, network_state, restore_network
from tombola.pruning import scopes
from tombola.pruning.mask import Mask
from tombola.pruning.pruner import Pruner
from tombola.pruning.scores import Score
from tombola.pruning.scores.inputs import Loss, ScoreInputs, cross_entropy, repeatable
from tombola.pruning.structures import Heads, pattern_of
from tombola.report.level_table import PrintableLevelTable
from tombola.report.live import live
from tombola.runs.distributed_store import shared_store
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.runs.store import Store, check_writable
from tombola.stats.level_table import Answer, LevelTable
from tombola.studies.conductor import Listener, ListenerGroup, conduct
from tombola.studies.controls import CONTROLS, ControlPlan
from tombola.studies.request import RunRequest, Study
from tombola.studies.rewinding import rewound_to
from tombola.studies.search import Prune, iterative_search, one_shot_search
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError, unknown
from tombola.utils.seeds import Purpose, derive
from tombola.utils.versions import versions
from tombola.utils.workers import InlineExecutor

NO_CONTROLS = ("large_init", "rewound")
"""Of the first the mask needs no training, `score="large_init"` is that; the second is the ticket itself."""

MARK: Literal["mark"] = "mark"


class SearchResult(NamedTuple):
    """What was found."""

    ticket: Ticket
    """The sparsest that matches the dense network; where none does, or nothing was evaluated, the sparsest of all."""
    levels: PrintableLevelTable
    """The table of all levels. It prints itself, and says which match."""


def find_ticket(
    model: Model,
    train: Train,
    *,
    evaluate: Evaluate | None = None,
    levels: int = 5,
    rate: float | None = None,
    density: float | None = None,
    scope: str = "layer",
    rates: Mapping[str, float] | None = None,
    leave_out: Sequence[str] = (),
    score: str | Score = "magnitude",
    structure: str | Heads = "weights",
    rounds: int | None = None,
    rewind: int | Literal["mark"] = 0,
    one_shot: bool = False,
    replicates: int = 1,
    controls: Mapping[str, int] | None = None,
    margin: float = 0.01,
    confidence: float = 0.95,
    data: Iterable[Any] | None = None,
    loss: Loss = cross_entropy,
    seed: int = 0,
    store: str | Path | None = None,
    settings: object = None,
    progress: bool | None = None,
    listeners: Sequence[Listener] = (),
) -> SearchResult:
    """Train, prune, rewind, and again (Frankle & Carbin 2019, section 1), with a training function of your own.

    `model` is a network, of which every training gets a copy, or a function that makes one anew for every training.
    `train(model)` trains it, with whatever loop, optimizer and framework; it makes its optimizer anew. Meanwhile
    pruned weights are held at zero (see `tombola.hold`), and nothing else about the network is changed. Python's,
    NumPy's and torch's global random states begin at the same seed for all trainings of a replicate, and are put
    back. (A framework that seeds them itself, as Hugging Face's Trainer does, makes replicates alike: give it
    `torch.initial_seed()`.)

    `evaluate(model)` says how good it is: a number, the greater the better (accuracy, minus the loss), or several by
    name, of which the first is judged. It is called in evaluation mode, without gradients. Choose a ticket with
    examples that you do not report on. Without it, what `train` returns is taken, if that is a number or several.

    - `levels`: how many prunings. `rate`: the fraction of the weights left that each removes (default 0.2); or
      `density`: the fraction left after all of them. `rates` gives layers, by name or pattern, their own.
    - `scope`, `leave_out`, `score`, `structure` and `rounds` are those of `tombola.prune`. For scores that look at
      examples, `data` is an iterable of batches as `loss(network, batch)` takes them: pairs `(x, y)` of a classifier,
      if it is not given.
    - `rewind`: weights go back to what they were after so many optimizer steps, or, with `"mark"`, where `train`
      calls `tombola.mark()`. Training from there is given as `train(model, begin=steps)` if it has that parameter; if
      not, `train` begins anew with those weights, for the dense network too.
    - `one_shot`: prune the trained dense network once to each density.
    - `replicates`: with other seeds; with other initial weights too if `model` is a function. `controls`: how many
      draws of which, `{"reinit": 1, "random": 1}`; see `tombola.studies.controls`.
    - `margin`: how far below the dense network's figure still matches it; see `LevelTable` for `confidence`.
    - `store`: a folder that remembers finished trainings, so that the same call goes on where it was stopped. What
      they depend on beside the source of the functions, and plain values, arrays and functions that these refer to,
      say in `settings`; see `tombola.engines.custom.fingerprint`. Without it nothing is kept.
    - `progress`: show it, in a terminal on standard error or in a notebook; by default where there is one.
      `listeners` are told of every training.

    In a distributed job all processes call it alike; a training counts as done when all of them have it.

    Raises `InputError` for arguments that would not work. What `train` and `evaluate` raise comes through; what is in
    `store` stays there.
    """
    _check(levels, rewind, replicates, margin, confidence, leave_out)
    source = CustomModel(model)
    network = source.begin(source.described(0))
    dense = Mask.full(network)
    if not dense:
        raise InputError("model: it has no linear or convolutional layer to prune")
    chosen = scopes.scope(scope, dense.shapes, _rate(rate, density, levels, structure), rates, leave_out)
    pruner = Pruner.named(network, score, chosen, structure, rounds)
    pruner.check_rounds(dense, levels)
    search = _Search(
        source=source,
        dense=dense,
        pruner=pruner,
        batches=None if data is None else repeatable(data),
        loss=loss,
        levels=levels,
        one_shot=one_shot,
        rewind=rewind,
        controls=_controls(controls or {}, source),
        seed=seed,
        procedure="" if store is None else fingerprint([train, evaluate, settings]),
        device=next(network.parameters()).device,
    )
    table = PrintableLevelTable(margin, confidence)
    with contextlib.ExitStack() as stack:
        folder = Path(store if store is not None else stack.enter_context(tempfile.TemporaryDirectory()))
        check_writable(folder)
        remembered = shared_store(folder)
        noting = ResultCollector(table)
        display = stack.enter_context(live(table, replicates * search.runs, progress))
        studies = [search.study(replicate) for replicate in range(replicates)]
        engine = CustomEngine(source, train, evaluate)
        conduct(studies, remembered, engine, InlineExecutor(), ListenerGroup([noting, display, *listeners]))
        return SearchResult(search.ticket(noting, remembered), table)


@dataclass
class _Search:
    """The studies of one call, one for each replicate."""

    source: CustomModel
    dense: Mask
    pruner: Pruner
    batches: Callable[[], Iterable[Any]] | None
    loss: Loss
    levels: int
    one_shot: bool
    rewind: int | Literal["mark"]
    controls: Mapping[str, int]
    seed: int
    procedure: str
    device: torch.device
    """Where the network is, and scores are taken."""

    @property
    def runs(self) -> int:
        """How many each study asks for."""
        return 1 + self.levels * (1 + sum(self.controls.values())) + (self.rewind != 0)

    def study(self, replicate: int) -> Study[None]:
        """The search, then the controls of what it found."""
        prune = self._pruning(replicate)
        whole = CustomRun(
            start=self.source.described(derive(self.seed, Purpose.WEIGHTS, replicate)),
            mask=self.dense,
            seed=derive(self.seed, Purpose.TRAINING, replicate),
            procedure=self.procedure,
        )
        if self.rewind == MARK:
            trunk = whole.model_copy(update={"at_mark": True})
            outcome: Outcome = yield RunRequest("trunk", 0, trunk)
            dense = whole.after(trunk, begin=outcome.measures.iterations)
        else:
            dense = yield from rewound_to(whole, self.rewind)
        tickets = yield from (one_shot_search if self.one_shot else iterative_search)(dense, self.levels, prune)
        for name, draws in self.controls.items():

            def drawing(level: int, draw: int, name: str = name) -> int:
                return derive(self.seed, Purpose[name.upper()], replicate, level, draw)

            yield from CONTROLS[name](ControlPlan(tickets, draws, drawing, prune=prune))

    def _pruning(self, replicate: int) -> Prune:
        def prune(outcome: Outcome, run: BaseRun, level: int) -> Mask:
            drawn = run.start.model_copy(update={"trained": None})
            return self.pruner(
                ScoreInputs(
                    weights={name: outcome.final[name].to(self.device) for name in run.mask},
                    mask=run.mask,
                    seed=derive(self.seed, Purpose.SCORE, replicate, level),
                    _start=lambda: {n: t.to(self.device) for n, t in network_state(self.source.begin(drawn)).items()},
                    _network=lambda: self._trained(run, outcome),
                    _batches=self.batches,
                    loss=self.loss,
                )
            )

        return prune

    def _trained(self, run: BaseRun, outcome: Outcome) -> nn.Module:
        network = self.source.begin(run.start.model_copy(update={"trained": None}))
        restore_network(network, outcome.final)
        run.mask.apply_(network)
        return network

    def ticket(self, noting: ResultCollector, store: Store) -> Ticket:
        """The sparsest that matches; of its replicates the best."""
        match = noting.table.sparsest_match
        level = match.level if match is not None and match.level else max(level for level, _ in noting.tickets)
        values = noting.table.values("ticket", level)
        there = [replicate for at, replicate in noting.tickets if at == level]
        best = max(there, key=lambda replicate: values.get(replicate, -math.inf))
        run = noting.tickets[level, best]
        network = self.source.begin(run.start, store.recall)
        start = {name: tensor for name, tensor in network_state(network).items() if name in network.state_dict()}
        final = store.recall(run.key)
        trained = {name: final[name] for name in start if name in final}
        for name, kept in run.mask.items():
            start[name].masked_fill_(~kept, 0)
        provenance = {
            "level": level,
            "replicate": best,
            "state": noting.table[level].state,
            "figures": {str(answer.replicate): answer.figures for answer in noting.table.of("ticket", level)},
            "run": run.description,
            "key": run.key,
            "versions": versions(),
        }
        return Ticket(run.mask, start, provenance, trained if trained.keys() == start.keys() else None)


class ResultCollector:
    """Listens, and fills the table."""

    def __init__(self, table: LevelTable) -> None:
        self.table = table
        self.tickets: dict[tuple[int, int], BaseRun] = {}

    def started(self, study: int, ask: RunRequest) -> None:
        """See `Listener`."""

    def answered(self, study: int, ask: RunRequest, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
        """See `Listener`."""
        if ask.branch == "trunk" or (ask.branch == "ticket" and (ask.level, study) in self.tickets):
            return
        if ask.branch == "ticket":
            self.tickets[ask.level, study] = ask.run
        curves = {name.removeprefix(FIGURE): c for name, c in outcome.curves.items() if name.startswith(FIGURE)}
        figures = {name: float(values[-1]) for name, values in curves.items()}
        measures, mask = outcome.measures, ask.run.mask
        self.table.answers.append(
            Answer(
                study,
                ask.level,
                ask.branch,
                ask.draw,
                mask.count,
                mask.size,
                {} if measures.diverged else figures,
                measures.diverged,
                measures.iterations,
            )
        )


def _rate(rate: float | None, density: float | None, levels: int, structure: str | Heads) -> float:
    """The rate of one level."""
    if isinstance(structure, str) and (pattern := pattern_of(structure)):
        if levels != 1 or rate is not None or density is not None:
            raise InputError(f'structure "{structure}" has its own density, in levels=1; give no rate and no density')
        return 1 - pattern[0] / pattern[1]
    return scopes.round_rate(rate, density, levels)


def _check(
    levels: int, rewind: object, replicates: int, margin: object, confidence: object, leave_out: object
) -> None:
    checks: list[tuple[str, object, bool, str]] = [
        ("levels", levels, isinstance(levels, int) and levels >= 1, "at least 1"),
        ("replicates", replicates, isinstance(replicates, int) and replicates >= 1, "at least 1"),
        (
            "rewind",
            rewind,
            rewind == MARK or (isinstance(rewind, int) and rewind >= 0),
            f'a number of optimizer steps, or "{MARK}"',
        ),
        ("margin", margin, isinstance(margin, int | float) and margin >= 0, "at least 0"),
        ("confidence", confidence, isinstance(confidence, float) and 0.5 < confidence < 1, "between 0.5 and 1"),
        ("leave_out", leave_out, not isinstance(leave_out, str), "a list of names"),
    ]
    for name, value, fine, right in checks:
        if not fine:
            raise InputError(f"{name}: should be {right}, not {value!r}")


def _controls(wanted: Mapping[str, int], source: CustomModel) -> Mapping[str, int]:
    known = [name for name in CONTROLS if name not in NO_CONTROLS]
    for name, draws in wanted.items():
        if name not in known:
            raise unknown("control", name, known)
        if isinstance(draws, bool) or not isinstance(draws, int) or draws < 0:
            raise InputError(f'controls: "{name}" should have a number of draws, not {draws!r}')
        if name == "reinit" and not source.drawn:
            raise InputError(
                'controls: "reinit" draws new initial weights: give a function that makes the model, not a model'
            )
    return wanted
