"""Dataset: arrays for classification, before scaling."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def pixel_maximum(dtype: np.dtype[Any]) -> int:
    """What scale `range` divides by: the largest value of unsigned integers of 8 or 16 bits, which are pixels; 1 for
    other numbers."""
    return int(np.iinfo(dtype).max) if dtype in (np.uint8, np.uint16) else 1


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test examples. Inputs are (examples, *shape), integers or floats; labels are (examples,), int64,
    from 0 to classes - 1. Colour images are (channels, height, width)."""

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    notes: tuple[str, ...] = ()
    """What the reader decided, and the user should know; a line each."""

    @property
    def inputs(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.x_train.shape[1:])

    @property
    def channels_last(self) -> bool:
        """Whether examples look like images of shape (height, width, channels), which are read with other axes."""
        return len(self.inputs) == 3 and self.inputs[2] <= 4 < min(self.inputs[:2])

    @property
    def nbytes(self) -> int:
        """The size of all arrays in bytes."""
        return sum(array.nbytes for array in (self.x_train, self.y_train, self.x_test, self.y_test))

    @property
    def classes(self) -> int:
        """The number of classes: one more than the largest training label."""
        return int(self.y_train.max()) + 1

    @cached_property
    def digest(self) -> str:
        """A hash of the content of all four arrays: 32 hexadecimal digits."""
        sha = hashlib.sha256()
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            sha.update(f"{array.dtype.str}{array.shape}".encode())
            sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()[:32]
