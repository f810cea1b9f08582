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
from tombola.zoo.datasets.search_paths import data_folders, download, first_existing


@dataclass(frozen=True)
class IdxFile:
    """One published file and its checksums."""

    name: str
    shape: tuple[int, ...]
    archive_md5: str
    """Of the published `.gz` file; downloads are compared with it."""
    content_md5: str | None = None
    """Of the uncompressed content, if published; every file read is compared with it."""


@dataclass(frozen=True)
class IdxSource:
    """A dataset of four files: training images and labels, test images and labels."""

    name: str
    url: str
    files: tuple[IdxFile, ...]
    balanced: bool = False
    """Whether every class has equally many examples; checked because no checksum of the content is published."""


def published_files(*checksums: tuple[str, ...]) -> tuple[IdxFile, ...]:
    """The four files; of each, the checksum of the archive and, if it is published, of the content."""
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    shapes = ((60000, 28, 28), (60000,), (10000, 28, 28), (10000,))
    return tuple(IdxFile(name, shape, *sums) for name, shape, sums in zip(names, shapes, checksums, strict=True))


MNIST = IdxSource(  # LeCun, Cortes & Burges
    "mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    published_files(
        ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
        ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
        ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
        ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
    ),
)

FASHION_MNIST = IdxSource(  # Xiao, Rasul & Vollgraf 2017
    "fashion-mnist",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    published_files(
        ("8d4fb7e6c68d591d4c3dfef9ec88bf0d",),
        ("25c81989df183df01b3e8a0aad5dffbe",),
        ("bef4ecab320f06d8554ea6380940ec79",),
        ("bb300cfdad3c16e7a12a480ee83cd310",),
    ),
    balanced=True,
)


def load_mnist(source: IdxSource, data_dir: str | Path | None) -> Dataset:
    """Read the dataset from the first folder that has it, or download it to the user's cache.

    The folders are those of `search_paths.data_folders`; in each, the files are in a folder with the dataset's name,
    plain or gzipped. Raises `InputError` with the folders searched and the missing or damaged file.
    """
    arrays = [read_idx(_locate(source, file, data_dir), file) for file in source.files]
    for file, array in zip(source.files, arrays, strict=True):
        if array.ndim == 1:
            counts = np.bincount(array)
            if len(counts) > 10 or (source.balanced and len(set(counts)) > 1):
                raise InputError(f"{source.name}: {file.name} is not the published file: wrong labels")
    x_train, y_train, x_test, y_test = arrays
    return Dataset(x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64))


def locate_mnist(source: IdxSource, data_dir: str | Path | None) -> Path | None:
    """The folder of the first file that `load_mnist` would read; None if any of them would be downloaded."""
    found = [_find(file, _folders(source, data_dir)) for file in source.files]
    return None if found[0] is None or None in found else found[0].parent


def _locate(source: IdxSource, file: IdxFile, data_dir: str | Path | None) -> Path:
    folders = _folders(source, data_dir)
    archive = f"{file.name}.gz"
    found = _find(file, folders)
    if found is not None:
        return found
    wanted, checksum = f"{file.name} or {archive}", f"md5:{file.archive_md5}"
    return download(source.name, wanted, source.url + archive, folders, checksum)


def _folders(source: IdxSource, data_dir: str | Path | None) -> list[Path]:
    return [folder / source.name for folder in data_folders(data_dir)]


def _find(file: IdxFile, folders: list[Path]) -> Path | None:
    return first_existing(
        (folder / name for folder in folders for name in (file.name, f"{file.name}.gz")), Path.is_file
    )


def read_idx(path: Path, file: IdxFile) -> Array:
    """Read an IDX file of unsigned bytes, plain or gzipped, and verify it. Raises `InputError` if it is truncated,
    altered or not the described `file`."""
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    wanted = 4 + 4 * len(file.shape) + math.prod(file.shape)
    if len(content) != wanted:
        raise InputError(f"{path} is damaged: {len(content):,} bytes of content, not {wanted:,}")
    header = np.frombuffer(content, ">i4", count=1 + len(file.shape))
    if header[0] != 0x0800 + len(file.shape) or tuple(header[1:]) != file.shape:
        raise InputError(f"{path} is not an IDX file of {' x '.join(map(str, file.shape))} unsigned bytes")
    if file.content_md5 and hashlib.md5(content, usedforsecurity=False).hexdigest() != file.content_md5:
        raise InputError(f"{path} is not the published file: its content does not match the checksum")
    return np.frombuffer(content, np.uint8, offset=4 * len(header)).reshape(file.shape)
