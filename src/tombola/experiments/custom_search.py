"""CustomSearch: the studies of a search with the user's own training function."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from tombola.engines.custom.engine import CustomRun
from tombola.engines.custom.model import CustomModel, restore_network
from tombola.pruning.mask import Mask
from tombola.pruning.network_state import network_state
from tombola.pruning.pruner import Pruner
from tombola.pruning.scores.inputs import ScoreInputs, generators, repeatable
from tombola.pruning.scores.losses import Loss
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.studies.controls import CONTROLS, ControlPlan
from tombola.studies.request import RunRequest, Study
from tombola.studies.rewinding import train_trunk
from tombola.studies.search import iterative_search, one_shot_search
from tombola.utils.random_state import seeded
from tombola.utils.seeds import Purpose, derive

MARK: Literal["mark"] = "mark"


@dataclass
class CustomSearch:
    """The studies of one call of `find_ticket`, one for each replicate."""

    source: CustomModel
    dense: Mask
    pruner: Pruner
    data: Iterable[Any] | None
    """Batches of training examples for scores."""
    loss: Loss
    levels: int
    one_shot: bool
    rewind: int | Literal["mark"]
    controls: Mapping[str, int]
    seed: int
    procedure: str
    """See `CustomRun`."""
    device: torch.device
    """Where the model is, and where scores are computed."""

    def __post_init__(self) -> None:
        with seeded(derive(self.seed, Purpose.SCORE)):  # an iterator is exhausted now
            self._batches = None if self.data is None else repeatable(self.data)

    @property
    def runs(self) -> int:
        """The number of runs of each study."""
        return 1 + self.levels * (1 + sum(self.controls.values())) + (self.rewind != 0)

    def study(self, replicate: int) -> Study[None]:
        """The search, then the controls of its tickets."""
        prune = functools.partial(self._prune, replicate)
        whole = CustomRun(
            start=self.source.start(derive(self.seed, Purpose.WEIGHTS, replicate)),
            mask=self.dense,
            seed=derive(self.seed, Purpose.TRAINING, replicate),
            procedure=self.procedure,
        )
        if self.rewind == MARK:
            trunk = whole.model_copy(update={"at_mark": True})
            outcome: Outcome = yield RunRequest("trunk", 0, trunk)
            dense = whole.after(trunk, begin=outcome.measures.iterations)
        else:
            dense = yield from train_trunk(whole, self.rewind)
        tickets = yield from (one_shot_search if self.one_shot else iterative_search)(dense, self.levels, prune)
        for name, draws in self.controls.items():

            def seed(level: int, draw: int, name: str = name) -> int:
                return derive(self.seed, Purpose[name.upper()], replicate, level, draw)

            yield from CONTROLS[name](ControlPlan(tickets, draws, seed, prune=prune))

    def _prune(self, replicate: int, outcome: Outcome, run: BaseRun, level: int) -> Mask:
        def initial() -> nn.Module:
            return self.source.initial_network(run.start.model_copy(update={"trained": None}))

        def trained() -> nn.Module:
            network = initial()
            restore_network(network, outcome.final)
            run.mask.apply_(network)
            return network

        seed = derive(self.seed, Purpose.SCORE, replicate, level)
        inputs = ScoreInputs(
            weights={name: outcome.final[name].to(self.device) for name in run.mask},
            mask=run.mask,
            seed=seed,
            _start=lambda: {n: t.to(self.device) for n, t in network_state(initial()).items()},
            _network=trained,
            _batches=self._batches,
            loss=self.loss,
        )
        with seeded(seed, generators(self.data)):
            return self.pruner(inputs)
