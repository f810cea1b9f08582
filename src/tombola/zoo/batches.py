"""Batch order: the examples of each iteration. Every engine takes its batches from here."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from tombola.utils.seeds import Purpose, sequence


def batches(seed: int, examples: int, batch_size: int, first: int, count: int) -> Tensor:
    """The batches of iterations `first` to `first + count - 1`: indices, int64 of shape (count, batch_size).

    The examples form an endless stream, a new random permutation for each epoch, divided into batches of equal size;
    a batch may continue from the end of one epoch into the next. Each example occurs once per epoch. Any range of
    iterations gives the same batches, so that a resumed training does too.
    """
    begin, end = first * batch_size, (first + count) * batch_size
    epochs = range(begin // examples, -(-end // examples))
    stream = np.concatenate([_permutation(seed, examples, epoch) for epoch in epochs])
    offset = epochs.start * examples
    return torch.from_numpy(stream[begin - offset : end - offset].reshape(count, batch_size))


@functools.lru_cache(maxsize=32)  # runs in a stack take turns
def _permutation(seed: int, examples: int, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.random.default_rng(sequence(seed, Purpose.ORDER, epoch)).permutation(examples)
