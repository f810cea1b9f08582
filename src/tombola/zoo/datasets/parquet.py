"""Images and labels in Parquet files, in the layout of the data sets on Hugging Face's hub."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from tombola.utils.errors import InputError
from tombola.zoo.datasets import decoded
from tombola.zoo.datasets.columns import ColumnChoice, Columns, find_columns, label_columns
from tombola.zoo.datasets.dataset import Array, Dataset
from tombola.zoo.datasets.folder_layout import FolderLayout, choose_files, files_in
from tombola.zoo.datasets.images import Unfit, decode

FORMAT = 1
"""Part of what decoded images are kept by. It changes when the same files come to mean other pixels."""

BATCH = 256
"""Rows of a file that are in memory at a time, still encoded."""


@dataclass(frozen=True)
class Part:
    """The files of the training or the test examples."""

    name: str
    files: tuple[Path, ...]


def read_parquet(folder: Path, columns: Columns | None = None) -> Dataset:
    """Read the data set in a folder of Parquet files; see `layout.choose_files` for where they may be.

    Images are uint8 of shape (examples, 3, height, width), or (examples, height, width) if all are grey. What was
    decoded is kept in the user's cache and not decoded again.

    Raises `InputError` that names the file, the row (from 0) and what is wrong.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    return read_files(folder, choose_files(str(folder), files_in(folder)), columns)


def read_files(folder: Path, layout: FolderLayout, columns: Columns | None = None) -> Dataset:
    """Read the data set in those files of a folder, as `read_parquet` does."""
    parts = [Part(name, tuple(folder / file for file in getattr(layout, name))) for name in ("train", "test")]
    first = parts[0].files[0]
    columns = columns or Columns()
    found = find_columns(first, _schema(first), columns)
    columns = replace(columns, image=found.image, label=found.label)
    key = _key(parts, columns)
    dataset = decoded.read(key)
    if dataset is None:
        dataset = _decoded(parts, columns)
        decoded.write(key, dataset)
    return dataset


def labels_in(folder: Path) -> list[str]:
    """The columns in a folder of Parquet files that could hold labels."""
    layout = choose_files(str(folder), files_in(folder))
    return label_columns(_schema(folder / layout.train[0]))


def _key(parts: list[Part], columns: Columns) -> str:
    """A hash of all that the decoded arrays depend on."""
    sha = hashlib.sha256(repr((FORMAT, PIL.__version__, columns)).encode())
    for part in parts:
        for path in part.files:
            try:
                with path.open("rb") as file:
                    sha.update(f"{part.name} {hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
            except OSError as error:
                raise InputError(f"{path} cannot be read: {error.strerror}") from error
    return sha.hexdigest()


def _decoded(parts: list[Part], columns: Columns) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow thinks of an image's description is nobody's concern here
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        (x_train, y_train), (x_test, y_test) = [_read_part(part, columns) for part in parts]
    train, test = parts[0].files[0], parts[1].files[0]
    if x_train.shape[-2:] != x_test.shape[-2:]:
        raise InputError(
            f"{train} has images of {_said(x_train[0])} and {test} of {_said(x_test[0])}; they should be alike: "
            "set data.size"
        )
    if x_train.ndim != x_test.ndim:  # the grey images of one part get the channels of the other
        x_train, x_test = _coloured(x_train), _coloured(x_test)
    classes = int(y_train.max()) + 1
    if classes > len(y_train):
        raise InputError(f"{train}: a label {classes - 1} is out of range for {len(y_train):,} training examples")
    if y_test.max() >= classes:
        raise InputError(
            f"{test}: a label {y_test.max()} is out of range: no training example has it, those in {train} have 0 to "
            f"{classes - 1}"
        )
    return Dataset(x_train, y_train, x_test, y_test)


def _read_part(part: Part, columns: Columns) -> tuple[Array, Array]:
    """The images and labels of all files, in their order."""
    count = sum(_rows(path) for path in part.files)
    if count == 0:
        raise InputError(f"{part.files[0]} has no rows: there are no {part.name} examples")
    labels: list[Array] = []
    images: Array | None = None
    at = 0
    for path in part.files:
        start = at
        for contents, numbers in _batches(path, columns):
            labels.append(numbers)
            for content in contents:
                row = f"{path}, row {at - start:,}"
                pixels = _image(row, content, columns.size)
                if images is None:
                    images = _room(part, count, pixels)
                images = _placed(row, images, at, pixels)
                at += 1
    assert images is not None
    return images, np.concatenate(labels)


def _image(row: str, content: bytes | None, size: int | None) -> Array:
    if content is None:
        raise InputError(f"{row}: there is no image; its bytes should be in the file")
    try:
        return decode(content, size)
    except Unfit as error:
        raise InputError(f"{row}: {error}") from error


def _room(part: Part, count: int, like: Array) -> Array:
    try:
        return np.empty((count, *like.shape), np.uint8)
    except (MemoryError, ValueError) as error:
        raise InputError(
            f"{part.files[0]}: {count:,} images of {_said(like)} do not fit into memory; set data.size to less"
        ) from error


def _placed(row: str, images: Array, at: int, pixels: Array) -> Array:
    """`images`, with colours if they now need them, with `pixels` at place `at`."""
    if pixels.shape[-2:] != images.shape[-2:]:
        raise InputError(
            f"{row}: the image is of {_said(pixels)}, and those before are of {_said(images[0])}; set data.size to "
            "bring all to one size"
        )
    if pixels.ndim == 3 and images.ndim == 3:  # the first image with colours, after grey ones
        images = _coloured(images)
    images[at] = pixels  # a grey one has the same pixels in every channel
    return images


def _coloured(images: Array) -> Array:
    """The same images with three channels."""
    return images if images.ndim == 4 else np.repeat(images[:, None], 3, axis=1)


def _said(image: Array) -> str:
    """How a message gives the shape of an image."""
    height, width = image.shape[-2:]
    return f"{height} x {width} pixels, {'colour' if image.ndim == 3 else 'grey'}"


def _batches(path: Path, columns: Columns) -> Iterator[tuple[list[bytes | None], Array]]:
    """Encoded images and labels of a file, `BATCH` rows at a time."""
    with _open(path) as file:
        found = find_columns(path, file.schema_arrow, columns)
        batches = file.iter_batches(BATCH, columns=[found.image, found.label], use_threads=False)
        row = 0
        while True:
            try:
                batch = next(batches, None)
                if batch is None:
                    return
                images = batch.column(found.image)
                if pa.types.is_struct(images.type):
                    images = pc.struct_field(images, "bytes")
                contents = images.to_pylist()
            except (pa.ArrowException, OSError) as error:
                raise _damaged(path, error) from error
            yield contents, _labels(path, row, batch.column(found.label), found)
            row += len(batch)


def _labels(path: Path, row: int, column: pa.Array, found: ColumnChoice) -> Array:
    """The labels of a batch that begins at `row`, checked."""
    if column.null_count:
        missing = row + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise InputError(f"{path}, row {missing:,}: there is no {found.label}; every image should have a label")
    values = column.to_numpy(zero_copy_only=False)
    if (values < 0).any():
        wrong = int(np.flatnonzero(values < 0)[0])
        raise InputError(
            f"{path}, row {row + wrong:,}: {found.label} is {values[wrong]}; it should be the number of the class, "
            "from 0 (images need labels)"
        )
    largest = found.classes - 1 if found.classes is not None else np.iinfo(np.int64).max
    if (values > largest).any():
        wrong = int(np.flatnonzero(values > largest)[0])
        raise InputError(
            f"{path}, row {row + wrong:,}: {found.label} is {values[wrong]}; it should be from 0 to {largest}"
        )
    return np.asarray(values, np.int64)


def _schema(path: Path) -> pa.Schema:
    with _open(path) as file:
        return file.schema_arrow


def _rows(path: Path) -> int:
    with _open(path) as file:
        return int(file.metadata.num_rows)


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(f"{path} is damaged or not a Parquet file: {reason}")
