"""A cache of decoded images in the user's cache, since decoding is slow."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import platformdirs
import torch

from tombola.utils.errors import DamagedFile, InputError
from tombola.utils.files import read_tensors, write_tensors
from tombola.zoo.datasets.dataset import ARRAYS, Dataset

log = logging.getLogger(__name__)

FORMAT = 1
"""Part of the key of decoded images; to be changed when the same files are decoded to other pixels."""


def cached(key: str, decode: Callable[[], Dataset]) -> Dataset:
    """The dataset with that key, which depends on everything that `decode` does."""
    dataset = read_cache(key)
    if dataset is None:
        dataset = decode()
        write_cache(key, dataset)
    return dataset


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
    x_train, y_train, x_test, y_test = (tensors[name].numpy() for name in ARRAYS)
    return Dataset(x_train, y_train, x_test, y_test)


def write_cache(key: str, dataset: Dataset) -> None:
    """Add the dataset to the cache; if it cannot be written, only log that."""
    tensors = {name: torch.from_numpy(np.ascontiguousarray(getattr(dataset, name))) for name in ARRAYS}
    try:
        write_tensors(cache_file(key), tensors, {"key": key})
    except InputError as error:
        log.info("decoded images are not cached: %s", error)
