"""ImageReader: decodes images in several threads, ahead of the training that needs them."""

from __future__ import annotations

import functools
import warnings
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from tombola.utils.workers import own_cores
from tombola.zoo.datasets.dataset import Array
from tombola.zoo.datasets.image_stack import decode_at
from tombola.zoo.datasets.streaming.image_source import ImageSource

AHEAD = 3
"""Batches that are decoded before they are needed."""

CHUNK = 8
"""Images of a batch that a thread decodes at a time."""


@functools.cache
def _decoders() -> ThreadPoolExecutor:
    """The threads that decode for all readers of this process."""
    return ThreadPoolExecutor(own_cores(), "decode images")


class Batch(NamedTuple):
    """A batch that is being decoded."""

    rows: Array
    pixels: Array
    """uint8 of shape (batch, *shape), complete when `chunks` are done."""
    chunks: list[Future[None]]

    def wait(self) -> Array:
        for chunk in self.chunks:
            chunk.result()
        return self.pixels


class ImageReader:
    """Decodes batches of images of one shape. Pixels do not depend on the threads, nor on what is read ahead."""

    def __init__(self, source: ImageSource, shape: tuple[int, ...], size: int | None, horizon: int = 0) -> None:
        """`shape`: of a decoded image; `size`: what it is resized to, if it is; `horizon`: the number of images whose
        blocks are read before they are decoded."""
        self.source = source
        self.shape = shape
        self.size = size
        self.horizon = horizon
        self._upcoming: deque[Array] = deque()
        self._prepared = 0
        self._decoding: deque[Batch] = deque()
        warnings.filterwarnings("ignore", module=r"PIL\.")  # about metadata

    def read_ahead(self, batches: Sequence[Array]) -> None:
        """Announce the batches, rows of the source, that will be read next, in place of those announced before."""
        known = len(self._decoding)
        if known > len(batches) or not all(
            np.array_equal(batch.rows, rows) for batch, rows in zip(self._decoding, batches, strict=False)
        ):
            known = 0
            self._decoding.clear()
        self._upcoming, self._prepared = deque(batches[known:]), 0
        self._fill()

    def read(self, rows: Array) -> Array:
        """The pixels of these images: uint8 of shape (len(rows), *shape). Raises `InputError` for damaged images."""
        if not self._decoding or not np.array_equal(self._decoding[0].rows, rows):
            return self._decode(rows).wait()
        pixels = self._decoding.popleft().wait()
        self._fill()
        return pixels

    def _fill(self) -> None:
        while self._upcoming and len(self._decoding) < AHEAD:
            self._decoding.append(self._decode(self._upcoming.popleft()))
            self._prepared = max(0, self._prepared - 1)
        while self._prepared < len(self._upcoming) and self._prepared * len(self._upcoming[0]) < self.horizon:
            self.source.prepare(self._upcoming[self._prepared])
            self._prepared += 1

    def _decode(self, rows: Array) -> Batch:
        pixels = np.empty((len(rows), *self.shape), np.uint8)
        parts = [slice(first, first + CHUNK) for first in range(0, len(rows), CHUNK)]
        return Batch(rows, pixels, [_decoders().submit(self._decode_part, rows[p], pixels[p]) for p in parts])

    def _decode_part(self, rows: Array, pixels: Array) -> None:
        for into, (place, content) in zip(pixels, self.source.read(rows.tolist()), strict=True):
            into[...] = decode_at(place, content, self.size)  # a grey image is broadcast to all channels
