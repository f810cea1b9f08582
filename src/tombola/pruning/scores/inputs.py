"""ScoreInputs: what scores are computed from."""

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

T = TypeVar("T")

Loss = Callable[[nn.Module, Any], Tensor]
"""(a network, a batch) -> the mean loss, a scalar."""


def cross_entropy(network: nn.Module, batch: Any) -> Tensor:
    """The loss of a classifier on a batch `(x, y)`."""
    x, y = batch
    return functional.cross_entropy(network(x), y)


@dataclass(frozen=True)
class ScoreInputs:
    """Trained weights, and functions for what may be expensive to make."""

    weights: Mapping[str, Tensor]
    """The trained prunable weights, by name; pruned ones are zero."""
    mask: Mask
    """Which of them are kept."""
    seed: int = 0
    """The seed of random scores."""
    _start: Callable[[], Mapping[str, Tensor]] | None = None
    _network: Callable[[], nn.Module] | None = None
    _batches: Callable[[], Iterable[Any]] | None = None
    loss: Loss = cross_entropy

    def start(self) -> Mapping[str, Tensor]:
        """The initial weights, none of them pruned, by name."""
        return _required(self._start, "initial weights", "start=STATE")()

    def network(self) -> nn.Module:
        """A new copy of the network with the trained weights, pruned ones zero, in evaluation mode.

        Batch norm that has not seen a batch is in training mode, and normalises each batch by itself: with its
        initial statistics, mean 0 and variance 1, it would do nothing.
        """
        network = _required(self._network, "the network", "the network itself")().eval()
        for module in network.modules():
            if isinstance(module, _BatchNorm):  # old checkpoints do not have the number of batches
                mean, variance = module.running_mean, module.running_var
                module.train(mean is None or variance is None or not bool(mean.any() or (variance != 1).any()))
        return network

    def batches(self) -> Iterator[Any]:
        """Batches of training examples as `loss` accepts them, at least one."""
        batches = iter(_required(self._batches, "training examples", "data=BATCHES")())
        try:
            first = next(batches)
        except StopIteration:
            raise InputError("data: has no batches, but this score needs training examples") from None
        return itertools.chain([first], batches)

    def masked(self, mask: Mask) -> ScoreInputs:
        """The same inputs with only the weights of this smaller mask."""
        weights = {name: weight * mask[name].to(weight.device) for name, weight in self.weights.items()}

        def network() -> nn.Module:
            masked = self.network()
            mask.apply_(masked)
            return masked

        return replace(self, weights=weights, mask=mask, _network=network)


def _required(make: Callable[[], T] | None, what: str, argument: str) -> Callable[[], T]:
    if make is None:
        raise InputError(f"score: needs {what}; give {argument}")
    return make


def repeatable(data: Iterable[Any]) -> Callable[[], Iterable[Any]]:
    """Make the batches iterable many times: an iterator would be exhausted after the first."""
    batches = list(data) if isinstance(data, Iterator) else data
    return lambda: batches
