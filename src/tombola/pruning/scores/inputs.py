"""ScoreInputs: what scores are computed from."""

from __future__ import annotations

import itertools
import random
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tombola.pruning.mask import Mask
from tombola.pruning.scores.losses import Loss, cross_entropy
from tombola.utils.errors import InputError
from tombola.utils.random_state import RandomGenerator

T = TypeVar("T")

_FEW = 100
"""Lists with more entries hold examples; their entries are not searched for generators."""


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
    """Of a network and a batch."""

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

    def batch_loss(self, network: nn.Module, batch: Any) -> Tensor:
        """The loss on a batch. Raises `InputError` if it is not a scalar, or has no gradient."""
        found: object = self.loss(network, batch)
        if not isinstance(found, Tensor) or found.numel() != 1:
            what = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise InputError(f"loss: should return a scalar tensor, the mean over the batch, not {what}")
        if not found.requires_grad:
            raise InputError("loss: does not depend on the pruned weights, or was detached, so it has no gradient")
        return found.reshape(())

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
    """Make the batches iterable many times: an iterator would be exhausted after the first. Raises `InputError` for
    what has no batches."""
    if not isinstance(data, Iterable) and not hasattr(data, "__getitem__"):
        raise InputError(f"data: should be an iterable of batches (x, y), not {type(data).__name__}")
    batches = list(data) if isinstance(data, Iterator) else data
    return lambda: batches


def generators(data: object) -> list[RandomGenerator]:
    """The random generators that batches are drawn with, besides the global ones: attributes of a `DataLoader`, of
    its samplers, datasets and their transforms, or of any other object that gives batches."""
    found, seen, pending = list[RandomGenerator](), dict[int, object](), [data]
    while pending:
        part = pending.pop()
        if id(part) in seen or isinstance(part, type | types.ModuleType):
            continue
        seen[id(part)] = part
        if isinstance(part, RandomGenerator):
            if not isinstance(part, random.SystemRandom):  # which has no state
                found.append(part)
        elif isinstance(part, list | tuple | dict):
            pending += (part.values() if isinstance(part, dict) else part) if len(part) <= _FEW else ()
        elif not isinstance(part, Tensor | np.ndarray):
            pending += getattr(part, "__dict__", {}).values()
    return found
