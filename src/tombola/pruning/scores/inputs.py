"""Grounds: what a score may look at."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from tombola.pruning.mask import Mask
from tombola.utils.errors import InputError

Made = TypeVar("Made")

Loss = Callable[[nn.Module, Any], Tensor]
"""(a network, a batch) -> the mean loss, a scalar."""


def cross_entropy(network: nn.Module, batch: Any) -> Tensor:
    """The loss of a classifier on a batch `(x, y)`."""
    x, y = batch
    return functional.cross_entropy(network(x), y)


@dataclass(frozen=True)
class ScoreInputs:
    """Trained weights, and behind calls, because they may be costly, what else there is."""

    weights: Mapping[str, Tensor]
    """The prunable weights as they were trained, by name; zero where they are pruned already."""
    mask: Mask
    """Which of them are left."""
    seed: int = 0
    """Of scores that draw."""
    _start: Callable[[], Mapping[str, Tensor]] | None = None
    _network: Callable[[], nn.Module] | None = None
    _batches: Callable[[], Iterable[Any]] | None = None
    loss: Loss = cross_entropy

    def start(self) -> Mapping[str, Tensor]:
        """The initial weights as they were drawn, none of them pruned, by name."""
        return _there(self._start, "the initial weights", "start=STATE")()

    def network(self) -> nn.Module:
        """A network of its own with the trained weights, pruned ones zero; in evaluation mode.

        But for batch norm that has not seen a batch: its statistics, mean 0 and variance 1, say nothing, and with
        them it would do nothing. It is in training mode, and normalises batches by themselves.
        """
        network = _there(self._network, "the network", "the network itself")().eval()
        for module in network.modules():
            if isinstance(module, _BatchNorm) and _untouched(module):
                module.train()
        return network

    def batches(self) -> Iterator[Any]:
        """Training examples: batches as `loss` takes them, at least one."""
        batches = iter(_there(self._batches, "training examples", "data=BATCHES")())
        try:
            first = next(batches)
        except StopIteration:
            raise InputError("this score looks at training examples, and data has not one batch") from None
        return itertools.chain([first], batches)

    def masked(self, mask: Mask) -> ScoreInputs:
        """The same with only the weights of this smaller mask left."""
        weights = {name: weight * mask[name].to(weight.device) for name, weight in self.weights.items()}

        def network() -> nn.Module:
            masked = self.network()
            mask.apply_(masked)
            return masked

        return replace(self, weights=weights, mask=mask, _network=network)


def _untouched(norm: _BatchNorm) -> bool:
    """Whether running statistics are those a layer is made with. Old checkpoints do not say how many batches."""
    mean, variance = norm.running_mean, norm.running_var
    return mean is None or variance is None or not (bool(mean.any()) or bool((variance != 1).any()))


def _there(make: Callable[[], Made] | None, what: str, give: str) -> Callable[[], Made]:
    if make is None:
        raise InputError(f"this score looks at {what}, and there is nothing to look at: give {give}")
    return make


def repeatable(data: Iterable[Any]) -> Callable[[], Iterable[Any]]:
    """The batches as often as they are wanted: an iterator would be used up the first time."""
    batches = list(data) if isinstance(data, Iterator) else data
    return lambda: batches
