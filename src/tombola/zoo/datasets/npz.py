"""The user's own arrays, in one `.npz` file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tombola.utils.errors import InputError
from tombola.utils.text import first_line
from tombola.zoo.datasets.dataset import ARRAYS, Array, Dataset
from tombola.zoo.datasets.search_paths import data_folders, first_existing


def find_npz(name: str, data_dir: Path | None) -> Path:
    """The file of that name, relative to the working folder or to one of the `search_paths.data_folders`. Raises
    `InputError` with the paths searched."""
    paths = [Path(name), *(folder / name for folder in data_folders(data_dir))]
    path = first_existing(paths, Path.is_file)
    if path is None:
        raise InputError(f"there is no data file {' or '.join(dict.fromkeys(map(str, paths)))}")
    return path


def read_npz(path: Path) -> Dataset:
    """Read `x_train`, `y_train`, `x_test` and `y_test` from an `.npz` file.

    Inputs are numbers of shape (examples, ...); labels are whole numbers from 0, of shape (examples,).
    Raises `InputError` with the invalid array and the reason.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            missing = [array for array in ARRAYS if array not in file]
            if missing:
                raise InputError(f"{path}: {', '.join(missing)} missing; it should have {', '.join(ARRAYS)}")
            arrays = {array: file[array] for array in ARRAYS}
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} cannot be read as an .npz file of plain arrays: {first_line(error)}") from error
    for part in ("train", "test"):
        _check_inputs(path, f"x_{part}", arrays[f"x_{part}"])
        arrays[f"y_{part}"] = _checked_labels(path, f"y_{part}", arrays[f"y_{part}"])
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if len(x) != len(y):
            raise InputError(f"{path}: x_{part} has {len(x)} examples and y_{part} has {len(y)} labels")
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        shapes = f"{arrays['x_train'].shape[1:]} and {arrays['x_test'].shape[1:]}"
        raise InputError(f"{path}: examples of x_train and x_test should have one shape, not {shapes}")
    classes = int(arrays["y_train"].max()) + 1
    if classes > len(arrays["y_train"]):
        raise InputError(
            f"{path}: y_train has a label {classes - 1}, out of range for {len(arrays['y_train'])} examples"
        )
    if arrays["y_test"].max() >= classes:
        raise InputError(
            f"{path}: y_test has a label {arrays['y_test'].max()}, out of range: y_train has 0 to {classes - 1}"
        )
    return Dataset(**arrays)


def _check_inputs(path: Path, name: str, array: Array) -> None:
    if array.ndim < 2 or 0 in array.shape:
        raise InputError(f"{path}: {name} should have shape (examples, ...) and not be empty; it has {array.shape}")
    if not _is_numeric(array):
        raise InputError(f"{path}: {name} should be numbers, not {array.dtype}")
    if not np.isfinite(array).all():
        raise InputError(f"{path}: {name} has NaN or infinite values")


def _checked_labels(path: Path, name: str, array: Array) -> Array:
    if array.ndim != 1 or len(array) == 0:
        raise InputError(f"{path}: {name} should have shape (examples,) and not be empty; it has {array.shape}")
    if not _is_numeric(array):
        raise InputError(f"{path}: {name} should be whole numbers, not {array.dtype}")
    if not np.isfinite(array).all() or (array != np.floor(array)).any() or (array < 0).any():
        raise InputError(f"{path}: {name} should be whole numbers from 0, the number of the class")
    return array.astype(np.int64)


def _is_numeric(array: Array) -> bool:
    return np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
