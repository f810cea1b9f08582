"""The digits in scikit-learn: 1,797 real handwritten digits of 8×8 pixels, without a download."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tombola.zoo.datasets.dataset import Dataset

TEST_EXAMPLES = 600

FILE = "sklearn/datasets/data/digits.csv.gz"
"""In the package scikit-learn."""


def load_digits() -> Dataset:
    """1,197 training and 600 test examples, pixels as float32 from 0 to 1.

    scikit-learn has no separate test set (it ships the test set of the UCI Optical Recognition of Handwritten
    Digits), so 600 examples are held out by one fixed permutation, the same in every experiment.
    """
    x, y = _read()
    images = (x.reshape(-1, 8, 8) / 16).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    test, train = order[:TEST_EXAMPLES], order[TEST_EXAMPLES:]
    labels = y.astype(np.int64)
    return Dataset(images[train], labels[train], images[test], labels[test])


def locate_digits() -> Path | None:
    """The file that `load_digits` reads; None if scikit-learn has it elsewhere."""
    file = Path(str(metadata.distribution("scikit-learn").locate_file(FILE)))
    return file if file.is_file() else None


def _read() -> tuple[npt.NDArray[np.float64], npt.NDArray[Any]]:
    """Pixels from 0 to 16, shape (1797, 64), and labels, as `sklearn.datasets.load_digits` returns them, which takes
    over a second to import."""
    try:
        table = np.loadtxt(str(metadata.distribution("scikit-learn").locate_file(FILE)), delimiter=",")
    except (metadata.PackageNotFoundError, OSError):  # another version may have the file elsewhere
        from sklearn import datasets

        x, y = datasets.load_digits(return_X_y=True)
        return x, y
    return table[:, :-1], table[:, -1]
