"""Datasets by name. To add one, write its loader in a file here and list it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from tombola.zoo.datasets.cifar import CIFAR10, CIFAR100, load_cifar, locate_cifar
from tombola.zoo.datasets.dataset import Dataset
from tombola.zoo.datasets.digits import load_digits, locate_digits
from tombola.zoo.datasets.mnist import FASHION_MNIST, MNIST, load_mnist, locate_mnist
from tombola.zoo.datasets.parquet_columns import Columns

DATASETS: dict[str, Callable[[str | Path | None], Dataset]] = {
    "digits": lambda data_dir: load_digits(),  # noqa: ARG005 - part of scikit-learn
    "mnist": functools.partial(load_mnist, MNIST),
    "fashion-mnist": functools.partial(load_mnist, FASHION_MNIST),
}
"""Each is called with the folder to search first, or None."""


PARQUET_DATASETS: dict[str, Callable[[str | Path | None, Columns], Dataset]] = {
    "cifar10": functools.partial(load_cifar, CIFAR10),
    "cifar100": functools.partial(load_cifar, CIFAR100),
}
"""Datasets in Parquet files; each is called with the columns to read too."""


LOCATIONS: dict[str, Callable[[str | Path | None], Path | None]] = {
    "digits": lambda data_dir: locate_digits(),  # noqa: ARG005 - part of scikit-learn
    "mnist": functools.partial(locate_mnist, MNIST),
    "fashion-mnist": functools.partial(locate_mnist, FASHION_MNIST),
    "cifar10": functools.partial(locate_cifar, CIFAR10),
    "cifar100": functools.partial(locate_cifar, CIFAR100),
}
"""Where the files of each dataset are; None if they would be downloaded."""
