"""InLoopScores: what a network is pruned by within the training that a framework owns."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from tombola.pruning.mask import State
from tombola.pruning.pruner import Pruner
from tombola.pruning.scores.losses import Loss, cross_entropy
from tombola.runs.initial_state import StateLoader
from tombola.runs.run import BaseRun
from tombola.zoo.models.description import Start


@dataclass
class InLoopScores:
    """The weights alone: neither other networks nor batches can be made. See `ScoreSource`."""

    pruner: Pruner
    initial: State
    """The initial weights, with which the search begins."""
    used_initial: bool = False
    """Whether a score has asked for them."""
    device: torch.device = field(init=False)
    loss: Loss = cross_entropy
    generators: tuple[()] = ()

    def __post_init__(self) -> None:
        self.device = next(iter(self.initial.values())).device

    def initial_state(self, start: Start, load_state: StateLoader) -> State:  # noqa: ARG002 - there is one start
        self.used_initial = True
        return self.initial

    def trained_network(self, run: BaseRun, state: State) -> None: ...

    def score_batches(self, run: BaseRun) -> None: ...
