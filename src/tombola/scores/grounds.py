"""Grounds: what a score may look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn import functional

from tombola.errors import InputError
from tombola.mask import Mask

Made = TypeVar("Made")

Loss = Callable[[nn.Module, Any], Tensor]
"""(a network, a batch) -> the mean loss, a scalar."""


def cross_entropy(network: nn.Module, batch: Any) -> Tensor:
    """The loss of a classifier on a batch `(x, y)`."""
    x, y = batch
    return functional.cross_entropy(network(x), y)


@dataclass(frozen=True)
class Grounds:
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
        """The weights that training started from, none of them pruned, by name."""
        return _there(self._start, "the initial weights", "start=STATE")()

    def network(self) -> nn.Module:
        """A network of its own with the trained weights, pruned ones zero; in evaluation mode."""
        return _there(self._network, "the network", "the network itself")().eval()

    def batches(self) -> Iterable[Any]:
        """Training examples: batches as `loss` takes them."""
        return _there(self._batches, "training examples", "data=BATCHES")()


def _there(make: Callable[[], Made] | None, what: str, give: str) -> Callable[[], Made]:
    if make is None:
        raise InputError(f"this score looks at {what}, and there is nothing to look at: give {give}")
    return make
