"""SplitExamples: what a training reads; ExampleSet: examples that are in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from tombola.utils.transfers import to_device
from tombola.zoo.batches import BatchOrder
from tombola.zoo.datasets.cropping import crop_centre


class SplitExamples(Protocol):
    """Examples of one part of a split. Inputs are float32 of shape (examples, *shape), labels int64 of shape
    (examples,); both are on the device that `to` was called with."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an input, before it is cropped."""

    def __len__(self) -> int: ...

    def __getitem__(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs and labels of a batch of indices into these examples."""

    def batches(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The inputs, not cropped, and labels of batches to train on. `order`: indices into these examples, int64 of
        shape (batches, examples), on the CPU."""

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The inputs and labels of all examples, in batches; the last may be smaller."""

    def part(self, begin: int, end: int) -> Self:
        """The examples from `begin` to `end - 1`."""

    def order(self, seed: int, batch_size: int) -> BatchOrder:
        """The order of the examples in a training."""

    def read_ahead(self, order: BatchOrder, first: int, count: int, last: int) -> None:
        """Announce that the batches of `count` iterations from `first` on will be read next, and later those up to
        iteration `last`."""

    def to(self, device: torch.device) -> Self:
        """The same examples, their inputs and labels on a device."""


@dataclass(frozen=True)
class ExampleSet:
    """Examples in memory: some rows of larger arrays. `rows`, int64; all rows if it is None. `x`: inputs, float32 of
    shape (any, *shape); `y`: labels, int64 of shape (any,)."""

    x: Tensor
    y: Tensor
    rows: Tensor | None = None
    centre: int | None = None
    """The side of the central square that images are cropped to, except in `batches`; None if they are not."""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.x.shape[1:])

    def __len__(self) -> int:
        return len(self.y if self.rows is None else self.rows)

    def __getitem__(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        x, y = self._select(batch)
        return crop_centre(x, self.centre), y

    def batches(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        yield from map(self._select, to_device(order, self.y.device))

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in torch.split(torch.arange(len(self), device=self.y.device), batch_size):
            yield self[batch]

    def part(self, begin: int, end: int) -> ExampleSet:
        return replace(self, rows=self.rows_of(torch.arange(begin, end, device=self.y.device)))

    def order(self, seed: int, batch_size: int) -> BatchOrder:
        return BatchOrder(seed, len(self), batch_size)

    def read_ahead(self, order: BatchOrder, first: int, count: int, last: int) -> None:
        """Nothing: they are in memory."""

    def rows_of(self, batch: Tensor) -> Tensor:
        """The rows of the arrays for a batch of indices into this set."""
        return batch if self.rows is None else self.rows[batch]

    def to(self, device: torch.device) -> ExampleSet:
        rows = None if self.rows is None else self.rows.to(device)
        return ExampleSet(self.x.to(device), self.y.to(device), rows, self.centre)

    def _select(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.rows_of(batch)
        return self.x[rows], self.y[rows]


def in_memory(examples: SplitExamples) -> ExampleSet:
    """The same examples, of which the caller knows that they are in memory."""
    assert isinstance(examples, ExampleSet)
    return examples
