"""Data sets by name. To add one, write its loader in a file here and name it in `DATA`."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path

from tombola.errors import InputError, unknown
from tombola.run import Data
from tombola.zoo.data.arrays import find_npz, read_npz
from tombola.zoo.data.dataset import Dataset
from tombola.zoo.data.digits import load_digits
from tombola.zoo.data.idx import FASHION_MNIST, MNIST, load_idx
from tombola.zoo.data.split import Split, split

DATA: dict[str, Callable[[Path | None], Dataset]] = {
    "digits": lambda data_dir: load_digits(),  # noqa: ARG005 - it is inside scikit-learn
    "mnist": functools.partial(load_idx, MNIST),
    "fashion-mnist": functools.partial(load_idx, FASHION_MNIST),
}
"""Each is called with the folder to look in first, or None."""


_LOCK = threading.Lock()


def load(name: str, data_dir: Path | None = None) -> Dataset:
    """The data set of that name: one of `DATA`, or the path of an `.npz` file.

    Raises `InputError` for an unknown name and for files that are missing, damaged or unfit.
    """
    if name.endswith(".npz"):
        path = find_npz(name, data_dir)
        status = path.stat()
        return _npz(path.resolve(), (status.st_ino, status.st_mtime_ns, status.st_size))
    if name not in DATA:
        raise unknown("data set", name, [*DATA, "path/to/arrays.npz"])
    return _named(name, data_dir)


@functools.lru_cache(maxsize=2)
def _named(name: str, data_dir: Path | None) -> Dataset:
    return DATA[name](data_dir)


@functools.lru_cache(maxsize=2)
def _npz(path: Path, stamp: tuple[int, int, int]) -> Dataset:  # noqa: ARG001 - another stamp is another file
    return read_npz(path)


@functools.lru_cache(maxsize=2)
def prepare(data: Data, data_dir: Path | None = None) -> Split:
    """The tensors that a run trains, validates and tests on; on the CPU.

    Raises `InputError` as `load` does, and when the arrays are not those that `data` describes.
    """
    with _LOCK:  # threads that want the same arrays wait for the first to make them
        dataset = load(data.name, data_dir)
        if dataset.digest != data.digest:
            raise InputError(
                f'data set "{data.name}" has changed: its content is not what this run was described with'
            )
        return split(dataset, data)
