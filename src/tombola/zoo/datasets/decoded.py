"""Decoded images, kept in the user's cache, because decoding takes longer than all other loading."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import platformdirs
import torch

from tombola.utils.errors import DamagedFile
from tombola.utils.files import read_tensors, write_tensors
from tombola.zoo.datasets.dataset import Dataset

log = logging.getLogger(__name__)

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def place(key: str) -> Path:
    """The file that the data set of that key is kept in."""
    return Path(platformdirs.user_cache_dir("tombola")) / "decoded" / f"{key[:32]}.safetensors"


def read(key: str) -> Dataset | None:
    """The data set that was kept by that key; None if there is none, or not a byte for byte whole one."""
    path = place(key)
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


def write(key: str, dataset: Dataset) -> None:
    """Keep the data set by that key; where nothing can be written, nothing is kept."""
    tensors = {name: torch.from_numpy(np.ascontiguousarray(getattr(dataset, name))) for name in ARRAYS}
    try:
        write_tensors(place(key), tensors, {"key": key})
    except OSError as error:
        log.info("decoded images are not kept: %s", error)
