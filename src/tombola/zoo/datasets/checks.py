"""What every reader of a user's files refuses: arrays that cannot be examples and their classes.

Each check raises `InputError`; `name`, `train` and `test` are what messages call an array: its file, and its name
there.
"""

from __future__ import annotations

import numpy as np

from tombola.utils.errors import InputError
from tombola.zoo.datasets.dataset import Array, pixel_maximum

SMALLEST, LARGEST = (float(number) for number in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))
"""Of positive numbers that float32 holds in full precision."""

MOST_CLASSES = 2**31
"""More than any network has; and above it, not all numbers fit int64."""


def check_inputs(name: str, x: Array) -> Array:
    """The inputs: finite numbers that float32 can hold, of shape (examples, ...). Pixels get the byte order of this
    machine."""
    if x.ndim < 2 or 0 in x.shape:
        raise InputError(f"{name} should have shape (examples, ...) and not be empty; it has {x.shape}")
    if x.dtype.kind not in "iuf":
        raise InputError(
            f"{name} should be numbers, not {x.dtype}; convert it, as by {name.split()[-1]}.astype('f4')"
        )
    finite = np.isfinite(x)
    if not finite.all():
        example = int(np.flatnonzero(~finite.reshape(len(x), -1).all(axis=1))[0])
        ends = ", which ends at 65,504" if x.dtype == np.float16 else ""
        raise InputError(f"{name} has NaN or infinite values, first in example {example:,}; it is {x.dtype}{ends}")
    largest = max(abs(float(x.max())), abs(float(x.min())))
    if largest and not SMALLEST <= largest <= LARGEST:
        raise InputError(
            f"{name} has numbers up to {largest:g}, but networks compute in float32, from {SMALLEST:.2g} to "
            f"{LARGEST:.2g}; rescale it"
        )
    native = x.dtype.newbyteorder("=")
    return x.astype(native, copy=False) if pixel_maximum(native) > 1 else x


def check_alike(train: str, test: str, x_train: Array, x_test: Array) -> None:
    """Training and test inputs have one shape, and types that are scaled alike."""
    if x_train.shape[1:] != x_test.shape[1:]:
        shapes = f"{x_train.shape[1:]} and {x_test.shape[1:]}"
        raise InputError(f"examples of {train} and {test} should have one shape, not {shapes}")
    by = {array.dtype: pixel_maximum(array.dtype) for array in (x_train, x_test)}
    if len(set(by.values())) > 1:
        how = " and ".join(
            f"{dtype} is {f'divided by {most:,}' if most > 1 else 'unchanged'}" for dtype, most in by.items()
        )
        raise InputError(
            f"{train} and {test} should have one type, not {x_train.dtype} and {x_test.dtype}, which are scaled "
            f"differently: {how}; convert one of them"
        )


def class_numbers(name: str, y: Array) -> Array:
    """The labels as int64 of shape (examples,): whole numbers from 0."""
    if y.ndim != 1 or len(y) == 0:
        array = name.split()[-1]
        advice = ""
        if y.ndim == 2 and y.shape[1] == 1:
            advice = f"; use {array}.ravel()"
        elif y.ndim == 2 and y.dtype.kind in "biuf" and len(y) and ((y != 0).sum(axis=1) == 1).all():
            advice = f", one-hot; use {array}.argmax(axis=1)"
        raise InputError(f"{name} should have shape (examples,) and not be empty; it has {y.shape}{advice}")
    if y.dtype.kind not in "iuf":
        advice = ".astype(int)" if y.dtype.kind == "b" else ""
        how = f"{name.split()[-1]}{advice}" if advice else "numpy.unique(labels, return_inverse=True)[1]"
        raise InputError(f"{name} should be whole numbers, not {y.dtype}; convert it, as by {how}")
    wrong = ~np.isfinite(y) | (y != np.floor(y)) | (y < 0)
    if wrong.any():
        raise InputError(f"{name} should be whole numbers from 0, the number of the class; it has {y[wrong][0]}")
    if float(y.max()) > MOST_CLASSES:
        raise InputError(f"{name} has a label {y.max()}, out of range; it should be the number of a class, from 0")
    return y.astype(np.int64)


def check_classes(train: str, test: str, y_train: Array, y_test: Array) -> None:
    """There are at least two classes, no more than training examples, and no others in the test set."""
    last = int(y_train.max())
    if last >= len(y_train):
        raise InputError(f"{train} has a label {last}, out of range for {len(y_train):,} training examples")
    if y_test.max() > last:
        raise InputError(f"{test} has a label {y_test.max()}, out of range: {train} has 0 to {last}")
    if last == y_train.min():
        raise InputError(f"{train} has only one class, {last}; it should have two or more")
