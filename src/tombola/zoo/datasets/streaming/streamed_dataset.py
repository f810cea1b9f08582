"""StreamedDataset: images that are read when they are needed, and their labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tombola.zoo.datasets.checks import check_classes
from tombola.zoo.datasets.dataset import Array, Dataset
from tombola.zoo.datasets.image_stack import other_size, other_sizes, size_in_words
from tombola.zoo.datasets.streaming.image_index import ImageIndex
from tombola.zoo.datasets.streaming.image_source import ImageSource

LARGE_BLOCK = 2000
"""Images of a row group for which a note says that it is large."""


@dataclass(frozen=True, eq=False)
class StreamedDataset:
    """Training and test images, which are not in memory. See `Dataset`, which has the same properties."""

    train: ImageSource
    test: ImageSource
    y_train: Array
    y_test: Array
    inputs: tuple[int, ...]
    """The shape of one decoded image, uint8: (3, height, width), or (height, width) if all are grey."""
    size: int | None
    """The height and width that images are resized to, if they are."""
    digest: str
    """A hash of the encoded images and their labels: 32 hexadecimal digits."""
    notes: tuple[str, ...] = ()
    channels_last: bool = False

    @property
    def classes(self) -> int:
        return int(self.y_train.max()) + 1


AnyDataset = Dataset | StreamedDataset


def has_blocks(dataset: AnyDataset) -> bool:
    """Whether training images are read in blocks of several."""
    return isinstance(dataset, StreamedDataset) and dataset.train.blocks is not None


@dataclass(frozen=True, eq=False)
class ImagePart:
    """The training or the test images, and what is known of them."""

    where: str
    """The folder or the first file, for messages."""
    source: ImageSource
    index: ImageIndex
    labels: Array


def streamed_dataset(
    train: ImagePart, test: ImagePart, size: int | None, notes: Sequence[str] = ()
) -> StreamedDataset:
    """The dataset of both parts. Raises `InputError` unless all images have one size, or are resized, and if labels
    are not classes."""
    check_classes(train.where, test.where, train.labels, test.labels)
    sha = hashlib.sha256(b"streamed")
    for part in (train, test):
        sha.update(np.int64(len(part.labels)).tobytes() + part.index.digests.tobytes() + part.labels.tobytes())
    inputs = _common_shape(train, test, size)
    parts = (train.source, test.source, train.labels, test.labels)
    return StreamedDataset(*parts, inputs, size, sha.hexdigest()[:32], (*notes, *_about_blocks(train)))


def _about_blocks(train: ImagePart) -> Iterator[str]:
    if train.source.blocks is not None and (largest := int(np.bincount(train.source.blocks).max())) > LARGE_BLOCK:
        yield (
            f"{train.where}: its row groups have up to {largest:,} images, which are read, shuffled and held out "
            "together; write smaller ones, as with pyarrow.parquet.write_table(..., row_group_size=100)"
        )


def _common_shape(train: ImagePart, test: ImagePart, size: int | None) -> tuple[int, ...]:
    """The shape of all images; with three channels if any has."""
    colour = any(part.index.shapes[:, 0].any() for part in (train, test))
    if size is not None:
        return (3, size, size) if colour else (size, size)
    for part in (train, test):
        sizes = part.index.shapes[:, 1:]
        if (others := np.flatnonzero((sizes != sizes[0]).any(axis=1))).size:
            row = int(others[0])
            place = part.source.read([row])[0].place
            raise other_size(place, *(size_in_words(part.index.shape(each)) for each in (row, 0)))
    first, second = (part.index.shape(0) for part in (train, test))
    if first[-2:] != second[-2:]:
        raise other_sizes(train.where, test.where, size_in_words(first), size_in_words(second))
    return (3, *first[-2:]) if colour else first
