"""Images and labels in Parquet files, as on Hugging Face's hub; decoded images are cached, as decoding is slow."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import pyarrow as pa

from tombola.utils.errors import InputError
from tombola.zoo.datasets.checks import check_classes
from tombola.zoo.datasets.dataset import Array, Dataset
from tombola.zoo.datasets.decoded_cache import FORMAT, cached
from tombola.zoo.datasets.image_stack import decoder_warnings, join_parts, stack_images
from tombola.zoo.datasets.parquet_columns import Columns, find_columns, label_columns
from tombola.zoo.datasets.parquet_file import (
    check_labels,
    count_rows,
    damaged_parquet,
    image_bytes,
    open_parquet,
    schema_of,
)
from tombola.zoo.datasets.parquet_files import DatasetFiles, choose_files, list_files
from tombola.zoo.datasets.streaming.readers import stream_parquet
from tombola.zoo.datasets.streaming.streamed_dataset import AnyDataset

BATCH = 256
"""Rows of a file in memory at a time, still encoded."""


def read_parquet(folder: Path, columns: Columns | None = None) -> AnyDataset:
    """Read the dataset in a folder of Parquet files; see `choose_files` for their names.

    Images are uint8 of shape (examples, 3, height, width), or (examples, height, width) if all are grey. Decoded
    images are cached in the user's cache. With `columns.stream` they are read when they are needed.

    Raises `InputError` with the file, the row (from 0) and what is wrong.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    return read_files(folder, choose_files(str(folder), list_files(folder)), columns)


def read_files(folder: Path, files: DatasetFiles, columns: Columns | None = None) -> AnyDataset:
    """Read the dataset in those files of a folder, as `read_parquet` does."""
    columns = columns or Columns()
    if columns.stream:
        return stream_parquet(folder, files, columns)
    train, test = ([folder / file for file in part] for part in (files.train, files.test))
    found = find_columns(train[0], schema_of(train[0]), columns)
    columns = replace(columns, image=found.image, label=found.label)
    key = _cache_key(train, test, columns)
    dataset = cached(key, lambda: _decode_all(train, test, columns))
    check_classes(str(train[0]), str(test[0]), dataset.y_train, dataset.y_test)
    return dataset


def label_columns_in(folder: Path) -> list[str]:
    """The columns in a folder of Parquet files that could hold labels."""
    files = choose_files(str(folder), list_files(folder))
    return label_columns(schema_of(folder / files.train[0]))


def _cache_key(train: list[Path], test: list[Path], columns: Columns) -> str:
    """A hash of everything that the decoded arrays depend on."""
    sha = hashlib.sha256(repr((FORMAT, PIL.__version__, columns)).encode())
    for part, path in [*(("train", path) for path in train), *(("test", path) for path in test)]:
        try:
            with path.open("rb") as file:
                sha.update(f"{part} {hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
    return sha.hexdigest()


def _decode_all(train: list[Path], test: list[Path], columns: Columns) -> Dataset:
    with decoder_warnings():
        x_train, y_train = _read_part("train", train, columns)
        x_test, y_test = _read_part("test", test, columns)
    x_train, x_test = join_parts(str(train[0]), str(test[0]), x_train, x_test)
    return Dataset(x_train, y_train, x_test, y_test)


def _read_part(part: str, files: list[Path], columns: Columns) -> tuple[Array, Array]:
    """The images and labels in all files, in their order."""
    count = sum(count_rows(path) for path in files)
    if count == 0:
        raise InputError(f"{files[0]} has no rows: there are no {part} examples")
    labels: list[Array] = []
    images = stack_images(str(files[0]), count, _encoded(files, columns, labels), columns.size)
    return images, np.concatenate(labels)


def _encoded(files: list[Path], columns: Columns, labels: list[Array]) -> Iterator[tuple[str, bytes | None]]:
    """Every encoded image, and its place for messages; their labels are appended to `labels`."""
    for path in files:
        row = 0
        for contents, batch_labels in _batches(path, columns):
            labels.append(batch_labels)
            for content in contents:
                yield f"{path}, row {row:,}", content
                row += 1


def _batches(path: Path, columns: Columns) -> Iterator[tuple[list[bytes | None], Array]]:
    """The encoded images and the labels of a file, `BATCH` rows at a time."""
    with open_parquet(path) as file:
        found = find_columns(path, file.schema_arrow, columns)
        batches = file.iter_batches(BATCH, columns=[found.image, found.label], use_threads=False)
        row = 0
        while True:
            try:
                batch = next(batches, None)
                if batch is None:
                    return
                contents = image_bytes(batch.column(found.image)).to_pylist()
            except (pa.ArrowException, OSError) as error:
                raise damaged_parquet(path, error) from error
            yield contents, check_labels(path, row, batch.column(found.label), found)
            row += len(batch)
