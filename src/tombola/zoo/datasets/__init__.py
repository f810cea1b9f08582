"""Datasets: loaded by name, and prepared as the tensors a run uses."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tombola.utils.errors import InputError, unknown
from tombola.zoo.datasets.dataset import Dataset
from tombola.zoo.datasets.description import Data
from tombola.zoo.datasets.hub import PREFIX, load_hub
from tombola.zoo.datasets.npz import find_npz, read_npz
from tombola.zoo.datasets.parquet import read_parquet
from tombola.zoo.datasets.parquet_columns import Columns
from tombola.zoo.datasets.registry import DATASETS, PARQUET_DATASETS
from tombola.zoo.datasets.search_paths import file_versions, find_folder
from tombola.zoo.datasets.split import Split, split

__all__ = ["DATASETS", "PARQUET_DATASETS", "load", "prepare"]

_PREPARING = threading.Lock()


def load(name: str, data_dir: Path | None = None, columns: Columns | None = None) -> Dataset:
    """The dataset of that name: one of `DATASETS` or `PARQUET_DATASETS`, the path of an `.npz` file or of a folder
    of Parquet files, or `hf:owner/name` on Hugging Face's hub.

    Raises `InputError` for an unknown name, for missing, damaged or invalid files, and for `columns` of a dataset
    that is not in Parquet files.
    """
    columns = columns or Columns()
    if name in PARQUET_DATASETS:
        return _load(PARQUET_DATASETS[name], data_dir, columns)
    if name.startswith(PREFIX):
        return _load(load_hub, name, columns)
    if columns.given and (name in DATASETS or name.endswith(".npz")):
        raise InputError(f'data.{columns.given[0]}: only for datasets in Parquet files, which "{name}" is not')
    if name in DATASETS:
        return _load(DATASETS[name], data_dir)
    if name.endswith(".npz"):
        path = find_npz(name, data_dir)
        return _load(read_npz, path.resolve(), versions=file_versions(path))
    folder = find_folder(name, data_dir)
    if folder is None:
        paths = ["path/to/arrays.npz", "path/to/folder", "hf:owner/name"]
        raise unknown("dataset", name, [*DATASETS, *PARQUET_DATASETS, *paths])
    return _load(read_parquet, folder.resolve(), columns, versions=file_versions(folder))


@functools.lru_cache(maxsize=2)
def _load(loader: Callable[..., Dataset], *arguments: Any, versions: object = None) -> Dataset:  # noqa: ARG001
    """What `loader` returns. Cached, except if `versions` shows that files have changed."""
    return loader(*arguments)


@functools.lru_cache(maxsize=2)
def prepare(data: Data, data_dir: Path | None = None) -> Split:
    """The tensors that a run trains, validates and tests on; on the CPU. Raises `InputError` as `load` does, and if
    the arrays are not those that `data` describes."""
    with _PREPARING:  # threads that need the same arrays wait for the first to make them
        dataset = load(data.name, data_dir, Columns(data.image, data.label, data.size))
        if dataset.digest != data.digest:
            raise InputError(f'dataset "{data.name}" has changed: its content is not that of the described run')
        return split(dataset, data)
