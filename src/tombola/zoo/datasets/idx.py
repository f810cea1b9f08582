"""MNIST and Fashion-MNIST: images and labels in IDX files, found on disk or downloaded, and verified."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tombola.utils.errors import InputError
from tombola.zoo.datasets.dataset import Array, Dataset
from tombola.zoo.datasets.download import download
from tombola.zoo.datasets.places import folders

IMAGES, LABELS = 3, 1  # numbers of dimensions


@dataclass(frozen=True)
class IdxFile:
    """One published file, and what is known of its content."""

    name: str
    shape: tuple[int, ...]
    archive_md5: str
    """Of the published `.gz` file; a download must match it."""
    content_md5: str | None = None
    """Of the uncompressed content, where it is published; whatever is read must match it."""


@dataclass(frozen=True)
class IdxSource:
    """A data set of four files: training images and labels, test images and labels."""

    name: str
    url: str
    files: tuple[IdxFile, IdxFile, IdxFile, IdxFile]
    per_class: bool = False
    """Whether every class has the same number of examples, which stands in for an unpublished content hash."""


MNIST = IdxSource(  # LeCun, Cortes & Burges
    "mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    (
        IdxFile(
            "train-images-idx3-ubyte",
            (60000, 28, 28),
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "6bbc9ace898e44ae57da46a324031adb",
        ),
        IdxFile(
            "train-labels-idx1-ubyte",
            (60000,),
            "d53e105ee54ea40749a09fcbcd1e9432",
            "a25bea736e30d166cdddb491f175f624",
        ),
        IdxFile(
            "t10k-images-idx3-ubyte",
            (10000, 28, 28),
            "9fb629c4189551a2d022fa330f9573f3",
            "2646ac647ad5339dbf082846283269ea",
        ),
        IdxFile(
            "t10k-labels-idx1-ubyte",
            (10000,),
            "ec29112dd5afa0611ce80d1b7f02629c",
            "27ae3e4e09519cfbb04c329615203637",
        ),
    ),
)

FASHION_MNIST = IdxSource(  # Xiao, Rasul & Vollgraf 2017
    "fashion-mnist",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    (
        IdxFile("train-images-idx3-ubyte", (60000, 28, 28), "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        IdxFile("train-labels-idx1-ubyte", (60000,), "25c81989df183df01b3e8a0aad5dffbe"),
        IdxFile("t10k-images-idx3-ubyte", (10000, 28, 28), "bef4ecab320f06d8554ea6380940ec79"),
        IdxFile("t10k-labels-idx1-ubyte", (10000,), "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    per_class=True,
)


def load_idx(source: IdxSource, data_dir: Path | None) -> Dataset:
    """Read the data set from the first folder that has it, or download it to the user's cache.

    The folders are `data_dir`, `TOMBOLA_DATA` and the user's cache; in each the files lie in a folder of the
    data set's name, plain or gzipped. Raises `InputError` that says where it looked and which file is missing
    or damaged.
    """
    arrays = [read_idx(_locate(source, file, data_dir), file) for file in source.files]
    for file, array in zip(source.files, arrays, strict=True):
        if array.ndim == LABELS:
            counts = np.bincount(array)
            if len(counts) > 10 or (source.per_class and len(set(counts)) > 1):
                raise InputError(f"{source.name}: {file.name} is not the published file: wrong labels")
    x_train, y_train, x_test, y_test = arrays
    return Dataset(x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64))


def _locate(source: IdxSource, file: IdxFile, data_dir: Path | None) -> Path:
    places = [folder / source.name for folder in folders(data_dir)]
    for place in places:
        for name in (file.name, f"{file.name}.gz"):
            if (place / name).is_file():
                return place / name
    name = f"{file.name}.gz"
    return download(
        source.name, f"{file.name} or {name}", source.url + name, places, checksum=f"md5:{file.archive_md5}"
    )


def read_idx(path: Path, file: IdxFile) -> Array:
    """Read an IDX file of unsigned bytes, plain or gzipped, and verify it.

    Raises `InputError` when it is truncated, altered or not what `file` says.
    """
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    wanted = 4 + 4 * len(file.shape) + math.prod(file.shape)
    if len(content) != wanted:
        raise InputError(f"{path} is damaged: {len(content):,} bytes of content where there should be {wanted:,}")
    header = np.frombuffer(content, ">i4", count=1 + len(file.shape))
    if header[0] != 0x0800 + len(file.shape) or tuple(header[1:]) != file.shape:
        raise InputError(f"{path} is not an IDX file of {' x '.join(map(str, file.shape))} unsigned bytes")
    if file.content_md5 and hashlib.md5(content, usedforsecurity=False).hexdigest() != file.content_md5:
        raise InputError(f"{path} is not the published file: its content does not match the checksum")
    return np.frombuffer(content, np.uint8, offset=4 * len(header)).reshape(file.shape)
