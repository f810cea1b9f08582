"""Datasets by name. To add one, write its loader in a file here and list it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from tombola.zoo.datasets.cifar import CIFAR10, CIFAR100, load_cifar, locate_cifar
from tombola.zoo.datasets.dataset import Dataset
from tombola.zoo.datasets.digits import load_digits, locate_digits
from tombola.zoo.datasets.imagenet import IMAGENET, TINY_IMAGENET, load_imagenet, locate_imagenet
from tombola.zoo.datasets.mnist import FASHION_MNIST, MNIST, load_mnist, locate_mnist
from tombola.zoo.datasets.parquet_columns import Columns
from tombola.zoo.datasets.streaming.streamed_dataset import AnyDataset

DATASETS: dict[str, Callable[[str | Path | None], Dataset]] = {
    "digits": lambda data_dir: load_digits(),  # noqa: ARG005 - part of scikit-learn
    "mnist": functools.partial(load_mnist, MNIST),
    "fashion-mnist": functools.partial(load_mnist, FASHION_MNIST),
}
"""Each is called with the folder to search first, or None."""


IMAGE_DATASETS: dict[str, Callable[[str | Path | None, Columns], AnyDataset]] = {
    "cifar10": functools.partial(load_cifar, CIFAR10),
    "cifar100": functools.partial(load_cifar, CIFAR100),
    "imagenet": functools.partial(load_imagenet, IMAGENET),
    "tiny-imagenet": functools.partial(load_imagenet, TINY_IMAGENET),
}
"""Datasets of image files; each is called with the columns to read too."""


LOCATIONS: dict[str, Callable[[str | Path | None], Path | None]] = {
    "digits": lambda data_dir: locate_digits(),  # noqa: ARG005 - part of scikit-learn
    "mnist": functools.partial(locate_mnist, MNIST),
    "fashion-mnist": functools.partial(locate_mnist, FASHION_MNIST),
    "cifar10": functools.partial(locate_cifar, CIFAR10),
    "cifar100": functools.partial(locate_cifar, CIFAR100),
    "imagenet": functools.partial(locate_imagenet, IMAGENET),
    "tiny-imagenet": functools.partial(locate_imagenet, TINY_IMAGENET),
}
"""Where the files of each dataset are; None if they are missing."""

DOWNLOADED = ("mnist", "fashion-mnist", "cifar10", "cifar100")
"""Datasets that are downloaded when they are used, if their files are missing."""
