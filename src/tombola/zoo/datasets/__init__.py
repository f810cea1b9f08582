"""Datasets: loaders by name, and the tensors that a run trains, validates and tests on."""

from __future__ import annotations

import functools
import threading
from pathlib import Path

from tombola.utils.errors import InputError
from tombola.zoo.datasets.columns import Columns
from tombola.zoo.datasets.description import Data
from tombola.zoo.datasets.registry import DATASETS, PARQUET_DATASETS, load
from tombola.zoo.datasets.split import Split, split

__all__ = ["DATASETS", "PARQUET_DATASETS", "load", "prepare"]

_LOCK = threading.Lock()


@functools.lru_cache(maxsize=2)
def prepare(data: Data, data_dir: Path | None = None) -> Split:
    """The tensors that a run trains, validates and tests on; on the CPU.

    Raises `InputError` as `load` does, and when the arrays are not those that `data` describes.
    """
    with _LOCK:  # threads that want the same arrays wait for the first to make them
        dataset = load(data.name, data_dir, Columns(data.image, data.label, data.size))
        if dataset.digest != data.digest:
            raise InputError(
                f'data set "{data.name}" has changed: its content is not what this run was described with'
            )
        return split(dataset, data)
