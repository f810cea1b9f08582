"""Image files in a folder for each class, as torchvision's `ImageFolder` reads them; all in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import PIL

from tombola.zoo.datasets.checks import check_classes
from tombola.zoo.datasets.class_folders import ClassFiles, ImageParts, find_image_parts, read_file
from tombola.zoo.datasets.dataset import Array, Dataset
from tombola.zoo.datasets.decoded_cache import FORMAT, cached
from tombola.zoo.datasets.image_stack import decoder_warnings, join_parts, stack_images
from tombola.zoo.datasets.parquet_columns import Columns
from tombola.zoo.datasets.streaming.readers import stream_image_folder
from tombola.zoo.datasets.streaming.streamed_dataset import AnyDataset


def read_image_folder(folder: Path, columns: Columns) -> AnyDataset:
    """Read the images that `find_image_parts` finds. Classes are numbered in the order of the names of their folders.
    Images are those of `read_parquet`.

    Raises `InputError` with the file or folder, and what is wrong.
    """
    if columns.stream:
        return stream_image_folder(folder, columns)
    return read_image_parts(find_image_parts(folder, _digests), columns.size)


def read_image_parts(parts: ImageParts, size: int | None) -> Dataset:
    """Decode all images, or read them from the cache."""
    dataset = cached(_cache_key(parts, size), lambda: _decode_all(parts, size))
    check_classes(str(parts.train.root), str(parts.test.root), dataset.y_train, dataset.y_test)
    return replace(dataset, notes=parts.notes)


def _digests(paths: Sequence[Path]) -> list[bytes]:
    return [_content_digest(path) for path in paths]


def _content_digest(path: Path) -> bytes:
    return hashlib.sha256(read_file(path)).digest()


def _cache_key(parts: ImageParts, size: int | None) -> str:
    """A hash of everything that the decoded arrays depend on."""
    sha = hashlib.sha256(repr(("images", FORMAT, PIL.__version__, size)).encode())
    for part in (parts.train, parts.test):
        sha.update(repr(part.classes).encode())
        for path in part.paths:
            sha.update(_content_digest(path))
    return sha.hexdigest()


def _decode_all(parts: ImageParts, size: int | None) -> Dataset:
    train, test = parts.train, parts.test
    y_train, y_test = parts.labels()
    with decoder_warnings():
        x_train, x_test = (_stack(part, size) for part in (train, test))
    x_train, x_test = join_parts(str(train.paths[0]), str(test.paths[0]), x_train, x_test)
    return Dataset(x_train, y_train, x_test, y_test)


def _stack(part: ClassFiles, size: int | None) -> Array:
    contents = ((str(path), read_file(path)) for path in part.paths)
    return stack_images(str(part.paths[0].parent), len(part.paths), contents, size)
