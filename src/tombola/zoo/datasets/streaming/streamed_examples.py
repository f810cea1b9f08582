"""StreamedExamples: some images of a streamed dataset as a training reads them, scaled on its device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tombola.utils.transfers import to_device
from tombola.zoo.batches import BatchOrder
from tombola.zoo.datasets.cropping import crop_centre
from tombola.zoo.datasets.dataset import Array
from tombola.zoo.datasets.streaming.image_reader import AHEAD, ImageReader

MAX_BYTES = 2**26
"""Pixels that are decoded for an evaluation at once, at most; several such batches are in memory."""


@dataclass(frozen=True, eq=False)
class StreamedExamples:
    """An `ExampleSet` whose images are decoded when they are needed; rows and labels are in memory, on the CPU."""

    reader: ImageReader
    rows: Array
    """The rows of the source: int64 of shape (examples,)."""
    y: Tensor
    """Their labels: int64 of shape (examples,)."""
    scaled: Tensor
    """What each pixel value is scaled to: float32 of shape (channels, 256); (1, 256) for images without channels."""
    centre: int | None = None
    """See `ExampleSet`."""
    shuffle_buffer: int = 1
    """Blocks with at least so many examples are shuffled together."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.reader.shape

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs and labels of a batch of indices, which is on the CPU."""
        return self._read(batch, self.centre)

    def batches(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        yield from map(self._read, order)

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        most = max(1, MAX_BYTES // math.prod(self.shape))
        batches: list[Tensor] = list(torch.split(torch.arange(len(self)), min(batch_size, most)))
        self.reader.read_ahead([self.rows[batch.numpy()] for batch in batches])
        yield from (self[batch] for batch in batches)

    def part(self, begin: int, end: int) -> StreamedExamples:
        return replace(self, rows=self.rows[begin:end], y=self.y[begin:end])

    def order(self, seed: int, batch_size: int) -> BatchOrder:
        blocks = self.reader.source.blocks
        of_rows = None if blocks is None else blocks[self.rows]
        return BatchOrder(seed, len(self), batch_size, of_rows, self.shuffle_buffer)

    def read_ahead(self, order: BatchOrder, first: int, count: int, last: int) -> None:
        ahead = AHEAD + 1 + self.reader.horizon // order.batch_size
        batches = order.batches(first, max(1, min(count + ahead, last - first)))
        self.reader.read_ahead([self.rows[batch.numpy()] for batch in batches])

    def to(self, device: torch.device) -> StreamedExamples:
        return replace(self, scaled=self.scaled.to(device))

    def _read(self, batch: Tensor, centre: int | None = None) -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(self.reader.read(self.rows[batch.numpy()]))
        pixels = crop_centre(pixels, centre).contiguous()
        device = self.scaled.device
        return self._scale(to_device(pixels, device)), to_device(self.y[batch], device)

    def _scale(self, pixels: Tensor) -> Tensor:
        """The scaled pixels: from uint8 to float32. A table gives the same bits as scaling on the CPU."""
        channels, values = self.scaled.shape
        indices = pixels.int()
        if channels > 1:
            first = values * torch.arange(channels, dtype=torch.int32, device=pixels.device)
            indices += first[:, None, None]
        return self.scaled.view(-1).index_select(0, indices.view(-1)).view_as(pixels)
