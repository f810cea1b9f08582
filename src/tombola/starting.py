"""Starting: the network that a training starts with, its weights drawn or left by an earlier training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tombola.mask import State
from tombola.run import AnyRun, Start
from tombola.zoo.networks import build

Recall = Callable[[str], State]
"""The key of a run -> the `state_dict` it ended with."""


def unknown_runs(key: str) -> State:
    """For where no run starts after another. Raises `LookupError`."""
    raise LookupError(f"run {key} is not known here")


def starting_network(start: Start, recall: Recall = unknown_runs) -> nn.Module:
    """The network of `start` with the weights it says, none of them pruned; on the CPU, in training mode.

    Raises whatever `build` and `recall` do.
    """
    network = build(start)
    if start.trained is not None:
        state = recall(start.trained.run)
        if start.trained.towards is not None:
            state = on_the_line(state, recall(start.trained.towards), start.trained.share)
        network.load_state_dict(state)
    return network


def masked_network(run: AnyRun, recall: Recall = unknown_runs) -> nn.Module:
    """The same for a run, its pruned weights zero."""
    network = starting_network(run.start, recall)
    run.mask.apply_(network)
    return network


def on_the_line(one: State, other: State, share: float) -> State:
    """(1 - share) · one + share · other, statistics of normalisation included; what is no real number is `one`'s."""

    def between(a: Tensor, b: Tensor) -> Tensor:
        return torch.lerp(a, b, share) if a.is_floating_point() else a

    return {name: between(value, other[name]) for name, value in one.items()}
