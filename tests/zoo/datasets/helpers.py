"""Small data sets to test with."""

from __future__ import annotations

from typing import Any

import numpy as np

from tombola.zoo.datasets.dataset import Array, Dataset
from tombola.zoo.datasets.description import Data


def arrays(**changes: Any) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    good: dict[str, Any] = {
        "x_train": generator.random((30, 4)),
        "y_train": np.arange(30) % 3,
        "x_test": generator.random((12, 4)),
        "y_test": np.arange(12) % 3,
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def dataset(x: Array) -> Dataset:
    labels = np.arange(len(x)) % 3
    return Dataset(x, labels, x[:5] if len(x) > 5 else x, labels[:5])


def described(whole: Dataset, **changes: Any) -> Data:
    return Data(**{"name": "any", "digest": whole.digest, "seed": 0, "validation": 6, **changes})
