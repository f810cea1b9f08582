"""ImageSource: where the encoded images of a streamed dataset are read from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from tombola.zoo.datasets.dataset import Array


class Encoded(NamedTuple):
    """An encoded image."""

    place: str
    """The file and, if it has several images, the row; for messages."""
    content: bytes | None
    """None if the file has no image there."""


class ImageSource(Protocol):
    """The encoded images of one part of a dataset, in a fixed order. Used by several threads at the same time."""

    @property
    def blocks(self) -> Array | None:
        """The block of each image, int32 of shape (images,), from 0, in order. The images of a block are read
        together. None if each image is read alone."""

    def __len__(self) -> int: ...

    def read(self, rows: Sequence[int]) -> list[Encoded]:
        """Those images. Raises `InputError` for a file that cannot be read."""

    def prepare(self, rows: Array) -> None:
        """Begin to read the blocks of these images, which will be needed in this order."""

    def keep(self, images: int) -> None:
        """Keep blocks with about so many images in memory."""
