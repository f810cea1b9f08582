"""Datasets by name. To add one, write its loader in a file here and name it in `DATASETS`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from tombola.utils.errors import InputError, unknown
from tombola.zoo.datasets.arrays import find_npz, read_npz
from tombola.zoo.datasets.cifar import CIFAR10, CIFAR100, load_cifar
from tombola.zoo.datasets.columns import Columns
from tombola.zoo.datasets.dataset import Dataset
from tombola.zoo.datasets.digits import load_digits
from tombola.zoo.datasets.hub import PREFIX, load_hub
from tombola.zoo.datasets.idx import FASHION_MNIST, MNIST, load_idx
from tombola.zoo.datasets.parquet import read_parquet
from tombola.zoo.datasets.places import find_folder, stamp

DATASETS: dict[str, Callable[[Path | None], Dataset]] = {
    "digits": lambda data_dir: load_digits(),  # noqa: ARG005 - it is inside scikit-learn
    "mnist": functools.partial(load_idx, MNIST),
    "fashion-mnist": functools.partial(load_idx, FASHION_MNIST),
}
"""Each is called with the folder to look in first, or None."""


PARQUET_DATASETS: dict[str, Callable[[Path | None, Columns], Dataset]] = {
    "cifar10": functools.partial(load_cifar, CIFAR10),
    "cifar100": functools.partial(load_cifar, CIFAR100),
}
"""Those of which columns can be chosen; each is called with the columns too."""


def load(name: str, data_dir: Path | None = None, columns: Columns | None = None) -> Dataset:
    """The data set of that name: one of `DATASETS` or `PARQUET_DATASETS`, the path of an `.npz` file or of a folder
    of Parquet files, or `hf:owner/name` of Hugging Face's hub.

    Raises `InputError` for an unknown name, for files that are missing, damaged or unfit, and for columns of data
    that has none to choose from.
    """
    columns = columns or Columns()
    if name in PARQUET_DATASETS:
        return _chosen(name, data_dir, columns)
    if name.startswith(PREFIX):
        return _hub(name, columns)
    plain = name in DATASETS or name.endswith(".npz")
    if plain and columns.given:
        raise InputError(f'data.{columns.given[0]}: "{name}" has no such choice; only data in Parquet files has')
    if name in DATASETS:
        return _named(name, data_dir)
    if plain:
        path = find_npz(name, data_dir)
        return _npz(path.resolve(), stamp(path))
    folder = find_folder(name, data_dir)
    if folder is None:
        raise unknown(
            "data set", name, [*DATASETS, *PARQUET_DATASETS, "path/to/arrays.npz", "path/to/folder", "hf:owner/name"]
        )
    return _folder(folder.resolve(), stamp(folder), columns)


@functools.lru_cache(maxsize=2)
def _named(name: str, data_dir: Path | None) -> Dataset:
    return DATASETS[name](data_dir)


@functools.lru_cache(maxsize=2)
def _chosen(name: str, data_dir: Path | None, columns: Columns) -> Dataset:
    return PARQUET_DATASETS[name](data_dir, columns)


@functools.lru_cache(maxsize=2)
def _hub(name: str, columns: Columns) -> Dataset:
    return load_hub(name, columns)


@functools.lru_cache(maxsize=2)
def _npz(path: Path, stamp: object) -> Dataset:  # noqa: ARG001 - another stamp is another file
    return read_npz(path)


@functools.lru_cache(maxsize=2)
def _folder(path: Path, stamp: object, columns: Columns) -> Dataset:  # noqa: ARG001 - the same
    return read_parquet(path, columns)
