"""Batch order: the examples of each iteration. Every engine takes its batches from here."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tombola.utils.random_stream import Array, RandomStream
from tombola.utils.seeds import Purpose, sequence


class BatchOrder:
    """The batches of a training: the examples form an endless stream, a new random permutation for each epoch,
    divided into batches of equal size; a batch may continue from the end of one epoch into the next. Each example
    occurs once per epoch.

    The last epoch's permutation is kept, in 1, 2 or 4 bytes an example: a stack has thousands of orders.
    """

    def __init__(self, seed: int, examples: int, batch_size: int) -> None:
        self.seed = seed
        self.examples = examples
        self.batch_size = batch_size
        self._stream = RandomStream(self._permutation, examples)

    def batches(self, first: int, count: int) -> Tensor:
        """The batches of iterations `first` to `first + count - 1`: indices, int64 of shape (count, batch_size).

        Any range of iterations gives the same batches, so that a resumed training does too.
        """
        order = self._stream.read(first * self.batch_size, (first + count) * self.batch_size)
        return torch.from_numpy(order.astype(np.int64).reshape(count, self.batch_size))

    def _permutation(self, epoch: int) -> Array:
        generator = np.random.default_rng(sequence(self.seed, Purpose.ORDER, epoch))
        return generator.permutation(self.examples).astype(np.min_scalar_type(self.examples))


def batches(seed: int, examples: int, batch_size: int, first: int, count: int) -> Tensor:
    """Some batches of a `BatchOrder`."""
    return BatchOrder(seed, examples, batch_size).batches(first, count)
