"""The user's own arrays, in one `.npz` file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tombola.utils.errors import InputError
from tombola.utils.text import first_line
from tombola.zoo.datasets.checks import check_alike, check_classes, check_inputs, class_numbers
from tombola.zoo.datasets.dataset import ARRAYS, Dataset


def read_npz(path: Path) -> Dataset:
    """Read `x_train`, `y_train`, `x_test` and `y_test` from an `.npz` file.

    Inputs are numbers of shape (examples, ...), of one type in both parts; labels are whole numbers from 0, of shape
    (examples,).
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
    x_train, x_test = (check_inputs(f"{path}: {name}", arrays[name]) for name in ("x_train", "x_test"))
    y_train, y_test = (class_numbers(f"{path}: {name}", arrays[name]) for name in ("y_train", "y_test"))
    for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        if len(x) != len(y):
            raise InputError(f"{path}: x_{part} has {len(x)} examples and y_{part} has {len(y)} labels")
    check_alike(f"{path}: x_train", "x_test", x_train, x_test)
    check_classes(f"{path}: y_train", f"{path}: y_test", y_train, y_test)
    return Dataset(x_train, y_train, x_test, y_test)
