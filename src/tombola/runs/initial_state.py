"""Starting: the network that a training starts with, its weights drawn or left by an earlier training."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from tombola.pruning.mask import State
from tombola.runs.outcome import without_pruned
from tombola.runs.run import BaseRun
from tombola.zoo.models import build
from tombola.zoo.models.description import Start


class Recall(Protocol):
    """What earlier runs left."""

    def __call__(self, key: str, /, *, optimizer: bool = False) -> State:
        """The `state_dict` that the run of that key ended with, or what its optimizer remembered."""
        ...


def no_earlier_runs(key: str, /, *, optimizer: bool = False) -> State:  # noqa: ARG001
    """For where no run starts after another. Raises `LookupError`."""
    raise LookupError(f"run {key} is not known here")


def initial_network(start: Start, recall: Recall = no_earlier_runs) -> nn.Module:
    """The network of `start` with the weights it says, none of them pruned; on the CPU, in training mode.

    Raises whatever `build` and `recall` do.
    """
    network = build(start)
    if start.trained is not None:
        state = recall(start.trained.run)
        if start.trained.towards is not None:
            state = interpolate(state, recall(start.trained.towards), start.trained.share)
        network.load_state_dict(state)
    return network


def masked_network(run: BaseRun, recall: Recall = no_earlier_runs) -> nn.Module:
    """The same for a run, its pruned weights zero."""
    network = initial_network(run.start, recall)
    run.mask.apply_(network)
    return network


def initial_optimizer_state(run: BaseRun, recall: Recall = no_earlier_runs) -> State:
    """What the optimizer of `run` remembers from the start, as in `Outcome.optimizer`; empty where it begins anew.

    Raises whatever `recall` does.
    """
    trained = run.start.trained
    if trained is None or not trained.optimizer:
        return {}
    return without_pruned(recall(trained.run, optimizer=True), run.mask)


def interpolate(one: State, other: State, share: float) -> State:
    """(1 - share) · one + share · other, statistics of normalisation included; what is no real number is `one`'s."""

    def between(a: Tensor, b: Tensor) -> Tensor:
        return torch.lerp(a, b, share) if a.is_floating_point() else a

    return {name: between(value, other[name]) for name, value in one.items()}
