"""Mixup: batches mixed with a permutation of themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tombola.runs.run import Run
from tombola.utils.random_stream import Array, RandomStream
from tombola.utils.seeds import Purpose, sequence

BLOCK = 100
"""Iterations drawn at a time."""


@dataclass(frozen=True)
class Mixed:
    """A batch is mixed with the examples `others` of itself: λ of each example and 1 - λ of the other."""

    share: float
    """λ."""
    others: Tensor
    """A permutation of the batch, int64 of shape (batch,)."""

    def __call__(self, values: Tensor) -> Tensor:
        """The mixed inputs of a batch."""
        own, others = self.pair(values)
        return torch.lerp(others, own, self.share)

    def pair(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The values of the examples, and of those that they are mixed with."""
        return values, values[self.others]


class Mixup:
    """Mixes the batches of a run (Zhang et al. 2018, section 2): with a ratio λ for each batch, drawn from
    Beta(α, α), and a random permutation of the batch. What is drawn depends on the run's seed and the
    iteration only."""

    def __init__(self, run: Run, device: torch.device) -> None:
        self.seed, self.alpha, self.batch_size = run.seed, run.training.mixup, run.training.batch_size
        self.device = device
        self._stream = RandomStream(self._block, BLOCK)

    def draws(self, first: int, count: int) -> list[Mixed]:
        """Of iterations `first` to `first + count - 1`."""
        rows = self._stream.read(first, first + count)
        others = torch.from_numpy(rows[:, 1:].astype(np.int64)).to(self.device)
        return [Mixed(float(share), other) for share, other in zip(rows[:, 0], others, strict=True)]

    def _block(self, block: int) -> Array:
        """λ and the permutation of each iteration, of shape (BLOCK, 1 + batch)."""
        generator = np.random.default_rng(sequence(self.seed, Purpose.MIXUP, block))
        shares = generator.beta(self.alpha, self.alpha, (BLOCK, 1))
        others = generator.permuted(np.tile(np.arange(self.batch_size), (BLOCK, 1)), axis=1)
        return np.concatenate([shares, others], axis=1)
