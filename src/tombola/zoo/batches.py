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

    Examples that can only be read in blocks are permuted as a shuffle buffer does it: blocks in random order, and
    within groups of consecutive blocks, that have `buffer` examples or more, their examples.

    The last epoch's permutation is kept, in 1, 2 or 4 bytes an example: a stack has thousands of orders.
    """

    def __init__(
        self, seed: int, examples: int, batch_size: int, blocks: Array | None = None, buffer: int = 1
    ) -> None:
        """`blocks`: the block of each example; without it, every example is one."""
        self.seed = seed
        self.examples = examples
        self.batch_size = batch_size
        self._blocks = blocks
        self._buffer = buffer
        self._stream = RandomStream(self._permutation, examples)

    def batches(self, first: int, count: int) -> Tensor:
        """The batches of iterations `first` to `first + count - 1`: indices, int64 of shape (count, batch_size).

        Any range of iterations gives the same batches, so that a resumed training does too.
        """
        order = self._stream.read(first * self.batch_size, (first + count) * self.batch_size)
        return torch.from_numpy(order.astype(np.int64).reshape(count, self.batch_size))

    def _permutation(self, epoch: int) -> Array:
        generator = np.random.default_rng(sequence(self.seed, Purpose.ORDER, epoch))
        if self._blocks is None:
            order = generator.permutation(self.examples)
        else:
            order = _shuffle_buffers(generator, permute_blocks(generator, self._blocks), self._blocks, self._buffer)
        return order.astype(np.min_scalar_type(self.examples))


def permute_blocks(generator: np.random.Generator, blocks: Array) -> Array:
    """The indices of `blocks`: blocks in random order, and within each block its indices in random order. If each has
    a block of its own, it is `generator.permutation(len(blocks))`."""
    names, numbers = np.unique(blocks, return_inverse=True)
    place = np.empty(len(names), np.int64)
    place[generator.permutation(len(names))] = np.arange(len(names))
    return np.lexsort((generator.random(len(blocks)), place[numbers]))


def _shuffle_buffers(generator: np.random.Generator, order: Array, blocks: Array, buffer: int) -> Array:
    """`order`, shuffled within groups of whole blocks of at least `buffer` examples; the last one has the rest."""
    ends = np.flatnonzero(np.diff(blocks[order], append=-1)) + 1
    shuffled, first = order.copy(), 0
    while first < len(order):
        reached = ends[np.searchsorted(ends, min(first + buffer, len(order)))]
        generator.shuffle(shuffled[first:reached])
        first = int(reached)
    return shuffled


def batches(seed: int, examples: int, batch_size: int, first: int, count: int) -> Tensor:
    """Some batches of a `BatchOrder`."""
    return BatchOrder(seed, examples, batch_size).batches(first, count)
