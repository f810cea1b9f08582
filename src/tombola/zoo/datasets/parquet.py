"""Images and labels in Parquet files, as on Hugging Face's hub; decoded images are cached, as decoding is slow."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import platformdirs
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from PIL import Image

from tombola.utils.errors import DamagedFile, InputError
from tombola.utils.files import read_tensors, write_tensors
from tombola.utils.text import first_line
from tombola.zoo.datasets.dataset import ARRAYS, Array, Dataset
from tombola.zoo.datasets.image_decoding import ImageError, decode
from tombola.zoo.datasets.parquet_columns import ColumnChoice, Columns, find_columns, label_columns
from tombola.zoo.datasets.parquet_files import DatasetFiles, choose_files, list_files

log = logging.getLogger(__name__)

FORMAT = 1
"""Part of the key of decoded images; to be changed when the same files are decoded to other pixels."""

BATCH = 256
"""Rows of a file in memory at a time, still encoded."""


def read_parquet(folder: Path, columns: Columns | None = None) -> Dataset:
    """Read the dataset in a folder of Parquet files; see `choose_files` for their names.

    Images are uint8 of shape (examples, 3, height, width), or (examples, height, width) if all are grey. Decoded
    images are cached in the user's cache.

    Raises `InputError` with the file, the row (from 0) and what is wrong.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    return read_files(folder, choose_files(str(folder), list_files(folder)), columns)


def read_files(folder: Path, files: DatasetFiles, columns: Columns | None = None) -> Dataset:
    """Read the dataset in those files of a folder, as `read_parquet` does."""
    train, test = ([folder / file for file in part] for part in (files.train, files.test))
    columns = columns or Columns()
    found = find_columns(train[0], _schema(train[0]), columns)
    columns = replace(columns, image=found.image, label=found.label)
    key = _cache_key(train, test, columns)
    dataset = read_cache(key)
    if dataset is None:
        dataset = _decode_all(train, test, columns)
        write_cache(key, dataset)
    return dataset


def label_columns_in(folder: Path) -> list[str]:
    """The columns in a folder of Parquet files that could hold labels."""
    files = choose_files(str(folder), list_files(folder))
    return label_columns(_schema(folder / files.train[0]))


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


def cache_file(key: str) -> Path:
    """The file for the dataset with that key."""
    return Path(platformdirs.user_cache_dir("tombola")) / "decoded" / f"{key[:32]}.safetensors"


def read_cache(key: str) -> Dataset | None:
    """The dataset with that key; None if it is not in the cache or its file is damaged."""
    path = cache_file(key)
    try:
        tensors, about = read_tensors(path)
        if about != {"key": key} or set(tensors) != set(ARRAYS):
            raise DamagedFile(f"{path} holds something else")
    except FileNotFoundError:
        return None
    except (DamagedFile, OSError) as error:
        log.info("decoding again: %s", error)
        return None
    return Dataset(**{name: tensors[name].numpy() for name in ARRAYS})


def write_cache(key: str, dataset: Dataset) -> None:
    """Add the dataset to the cache; if it cannot be written, only log that."""
    tensors = {name: torch.from_numpy(np.ascontiguousarray(getattr(dataset, name))) for name in ARRAYS}
    try:
        write_tensors(cache_file(key), tensors, {"key": key})
    except OSError as error:
        log.info("decoded images are not cached: %s", error)


def _decode_all(train: list[Path], test: list[Path], columns: Columns) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warnings about metadata do not matter here
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        x_train, y_train = _read_part("train", train, columns)
        x_test, y_test = _read_part("test", test, columns)
    if x_train.shape[-2:] != x_test.shape[-2:]:
        raise InputError(
            f"{train[0]} has images of {_size(x_train[0])} and {test[0]} of {_size(x_test[0])}; they should have one "
            "size: set data.size"
        )
    if x_train.ndim != x_test.ndim:  # one part is grey, the other has colours
        x_train, x_test = _with_channels(x_train), _with_channels(x_test)
    classes = int(y_train.max()) + 1
    if classes > len(y_train):
        raise InputError(f"{train[0]}: label {classes - 1} is out of range for {len(y_train):,} training examples")
    if y_test.max() >= classes:
        raise InputError(
            f"{test[0]}: label {y_test.max()} is out of range: training labels in {train[0]} are 0 to {classes - 1}"
        )
    return Dataset(x_train, y_train, x_test, y_test)


def _read_part(part: str, files: list[Path], columns: Columns) -> tuple[Array, Array]:
    """The images and labels in all files, in their order."""
    count = sum(_count_rows(path) for path in files)
    if count == 0:
        raise InputError(f"{files[0]} has no rows: there are no {part} examples")
    labels: list[Array] = []
    images: Array | None = None
    index = 0
    for path in files:
        start = index
        for contents, batch_labels in _batches(path, columns):
            labels.append(batch_labels)
            for content in contents:
                row = f"{path}, row {index - start:,}"
                pixels = _decode_row(row, content, columns.size)
                if images is None:
                    images = _allocate(files[0], count, pixels)
                images = _store(row, images, index, pixels)
                index += 1
    assert images is not None
    return images, np.concatenate(labels)


def _decode_row(row: str, content: bytes | None, size: int | None) -> Array:
    if content is None:
        raise InputError(f"{row}: the image is missing; the file should contain its bytes")
    try:
        return decode(content, size)
    except ImageError as error:
        raise InputError(f"{row}: {error}") from error


def _allocate(path: Path, count: int, pixels: Array) -> Array:
    try:
        return np.empty((count, *pixels.shape), np.uint8)
    except (MemoryError, ValueError) as error:
        raise InputError(
            f"{path}: {count:,} images of {_size(pixels)} do not fit into memory; set data.size to less"
        ) from error


def _store(row: str, images: Array, index: int, pixels: Array) -> Array:
    """`images` with `pixels` at `index`; with three channels from the first colour image on."""
    if pixels.shape[-2:] != images.shape[-2:]:
        raise InputError(
            f"{row}: the image has {_size(pixels)}, the images before it have {_size(images[0])}; set data.size to "
            "resize them all"
        )
    if pixels.ndim == 3 and images.ndim == 3:
        images = _with_channels(images)
    images[index] = pixels  # a grey image is broadcast to all channels
    return images


def _with_channels(images: Array) -> Array:
    """The same images with three channels."""
    return images if images.ndim == 4 else np.repeat(images[:, None], 3, axis=1)


def _size(image: Array) -> str:
    """The size of an image, for messages."""
    height, width = image.shape[-2:]
    return f"{height} x {width} {'colour' if image.ndim == 3 else 'grey'} pixels"


def _batches(path: Path, columns: Columns) -> Iterator[tuple[list[bytes | None], Array]]:
    """The encoded images and the labels of a file, `BATCH` rows at a time."""
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
            yield contents, _checked_labels(path, row, batch.column(found.label), found)
            row += len(batch)


def _checked_labels(path: Path, row: int, column: pa.Array, found: ColumnChoice) -> Array:
    """The labels of a batch whose first row is `row`."""
    if column.null_count:
        missing = row + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise InputError(f"{path}, row {missing:,}: {found.label} is missing; every image needs a label")
    values = column.to_numpy(zero_copy_only=False)
    largest = np.iinfo(np.int64).max if found.classes is None else found.classes - 1
    to = "" if found.classes is None else f" to {largest}"
    wrong = np.flatnonzero((values < 0) | (values > largest))
    if wrong.size:
        problem = f"{found.label} is {values[wrong[0]]}; it should be from 0{to}"
        raise InputError(f"{path}, row {row + int(wrong[0]):,}: {problem}")
    return np.asarray(values, np.int64)


def _schema(path: Path) -> pa.Schema:
    with _open(path) as file:
        return file.schema_arrow


def _count_rows(path: Path) -> int:
    with _open(path) as file:
        return int(file.metadata.num_rows)


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is damaged or not a Parquet file: {first_line(error)}")
