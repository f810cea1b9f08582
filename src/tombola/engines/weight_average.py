"""WeightAverage: an exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tombola.pruning.mask import State

ENTRY = "ema:"
"""The kind of the average's entries in `Outcome.optimizer`; no entry of an optimizer is named so."""


class WeightAverage:
    """After each step, average = decay · average + (1 - decay) · weights (Polyak & Juditsky 1992 for the idea;
    Tarvainen & Valpola 2017 for the exponential average). It begins at the weights with which the training begins.

    Running statistics of normalisation layers are averaged as well, which approximates those of the network with the
    average weights. Integers, such as numbers of batches, are those of the network. A weight that is always zero has
    an average of exactly zero.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = network
        self.decay = decay
        self.values = {name: value.clone() for name, value in self._current().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Called after each step."""
        current = self._current()
        torch._foreach_lerp_([self.values[name] for name in current], [*current.values()], 1 - self.decay)

    def state(self) -> State:
        """The `state_dict` of the network with the average weights."""
        return self.network.state_dict() | self.values

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Continue with these values."""
        for name, value in self.values.items():
            value.copy_(values[name])

    def _current(self) -> State:
        return {
            name: value.detach() for name, value in self.network.state_dict().items() if value.is_floating_point()
        }
