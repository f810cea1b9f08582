"""Workload: what an experiment trains, and how its networks and batches are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from tombola.pruning.mask import State
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.pruner import Pruner
from tombola.pruning.scores.losses import Loss
from tombola.runs.initial_state import StateLoader
from tombola.runs.run import BaseRun, Run
from tombola.utils.random_state import RandomGenerator
from tombola.zoo.models.description import Start


class ScoreSource(Protocol):
    """What is needed to prune a network after a training."""

    @property
    def pruner(self) -> Pruner:
        """How the network is pruned."""

    def initial_state(self, start: Start, load_state: StateLoader) -> State:
        """The unpruned parameters and buffers that a training starts with."""

    def trained_network(self, run: BaseRun, state: State) -> Callable[[], nn.Module] | None:
        """A function that makes networks with the weights that `run` ended with; None if no networks can be made."""

    def score_batches(self, run: BaseRun) -> Callable[[], Iterable[Any]] | None:
        """A function that makes the batches of training examples for scores; None if there are no batches."""

    @property
    def loss(self) -> Loss:
        """The loss of the network on a batch."""

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

    @property
    def prunable(self) -> PrunableNetwork:
        """The network, with an example of its inputs."""

    def dense(self, replicate: int) -> BaseRun:
        """The dense network's run. Each replicate has its own seeds."""

    def baselines(self, replicate: int) -> Sequence[BaseRun]:
        """The runs that train the dense network in other ways, from the first iteration to the last."""

    def masked_state(self, run: BaseRun, load_state: StateLoader) -> State:
        """The `state_dict` that `run` starts with; pruned weights are zero."""

    def training_batches(self, run: Run, first: int, count: int) -> Iterator[Any]:
        """The batches of `count` iterations of the run, without augmentation."""
