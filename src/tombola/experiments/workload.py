"""Workload: what an experiment trains, and how it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from tombola.pruning.mask import State
from tombola.pruning.pruner import Pruner
from tombola.pruning.scores.losses import Loss
from tombola.runs.initial_state import StateLoader
from tombola.runs.run import BaseRun, Run
from tombola.utils.random_state import RandomGenerator
from tombola.zoo.models.description import Start


class ScoreSource(Protocol):
    """What a network is pruned by after a training."""

    @property
    def pruner(self) -> Pruner:
        """How the network is pruned."""

    def initial_state(self, start: Start, load_state: StateLoader) -> State:
        """The parameters and buffers that a training starts with, none of them pruned."""

    def trained_network(self, run: BaseRun, state: State) -> Callable[[], nn.Module] | None:
        """Makes networks with the weights that `run` ended with; None if there can be no others."""

    def score_batches(self, run: BaseRun) -> Callable[[], Iterable[Any]] | None:
        """Makes the batches of training examples for scores; None if there are none."""

    @property
    def loss(self) -> Loss:
        """Of the network on a batch."""

    @property
    def device(self) -> torch.device:
        """Where scores are computed."""

    @property
    def generators(self) -> Sequence[RandomGenerator]:
        """The random generators that batches are drawn with, besides the global ones."""


class Workload(ScoreSource, Protocol):
    """A model of the zoo that is trained on a dataset, or the user's own functions."""

    @property
    def matrix_weights(self) -> int:
        """The number of all matrix weights of the network, prunable or not."""

    def dense(self, replicate: int) -> BaseRun:
        """The dense network's run. Each replicate has its own seeds."""

    def baselines(self, replicate: int) -> Sequence[BaseRun]:
        """The dense network's runs in which it is trained in other ways, from the first iteration to the last."""

    def masked_state(self, run: BaseRun, load_state: StateLoader) -> State:
        """What `run` starts with, zero where its mask prunes it; of buffers those that a `state_dict` has."""

    def training_batches(self, run: Run, first: int, count: int) -> Iterator[Any]:
        """The batches of `count` iterations of the run, without augmentation."""
