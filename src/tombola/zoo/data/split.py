"""Split: the tensors a run works on, divided into training, validation and test, and scaled."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tombola.errors import InputError
from tombola.run import Data
from tombola.seeds import Purpose, sequence
from tombola.zoo.data.dataset import Array, Dataset


@dataclass(frozen=True)
class Examples:
    """Examples that lie in larger arrays: `rows` says which, int64; all of them if it is None.

    `x`: inputs, float32 of shape (any, *shape); `y`: labels, int64 of shape (any,).
    """

    x: Tensor
    y: Tensor
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y if self.rows is None else self.rows)

    def __getitem__(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs and labels of these examples; `batch` counts in this set, not in the arrays."""
        rows = self.places(batch)
        return self.x[rows], self.y[rows]

    def places(self, batch: Tensor) -> Tensor:
        """Where in the arrays these examples are."""
        return batch if self.rows is None else self.rows[batch]

    def to(self, device: torch.device) -> Examples:
        rows = None if self.rows is None else self.rows.to(device)
        return Examples(self.x.to(device), self.y.to(device), rows)


@dataclass(frozen=True)
class Split:
    """What to train on, what to choose by, and what to report on. The last is never used to choose."""

    train: Examples
    validation: Examples
    test: Examples

    def to(self, device: torch.device) -> Split:
        return Split(self.train.to(device), self.validation.to(device), self.test.to(device))


def check_validation(dataset: Dataset, validation: int) -> None:
    """Raises `InputError` unless something is left both to train and to validate on."""
    available = len(dataset.y_train)
    if not 1 <= validation < available:
        raise InputError(f"data.validation: should be from 1 to {available - 1:,}, not {validation:,}")


def training_examples(dataset: Dataset, validation: int, fraction: float) -> int:
    """How many examples there are to train on.

    Raises `InputError` unless something is left both to train and to validate on.
    """
    check_validation(dataset, validation)
    return max(1, round(fraction * (len(dataset.y_train) - validation)))


def split(dataset: Dataset, data: Data) -> Split:
    """Hold out `data.validation` training examples, drawn by `data.seed`, take `data.fraction` of the others,
    randomise `data.label_noise` of their labels, and scale all inputs.

    Raises `InputError` when nothing would be left to train on.
    """
    examples = training_examples(dataset, data.validation, data.fraction)
    order = np.random.default_rng(sequence(data.seed, Purpose.SPLIT)).permutation(len(dataset.y_train))
    held_out, train = order[: data.validation], order[data.validation :][:examples]
    if data.scale == "standard":  # depends on which examples train
        _, x_train, x_test = scale(data.scale, dataset.x_train[train], dataset.x_train, dataset.x_test)
    else:
        x_train, x_test = _scaled(dataset, data.scale)
    x, y = torch.from_numpy(x_train), torch.from_numpy(dataset.y_train)
    labels = torch.from_numpy(_randomised(dataset, train, data)) if data.label_noise else y
    return Split(
        # The training examples, most of all, stay where they are: replicates share them.
        train=Examples(x, labels, torch.from_numpy(train)),
        validation=Examples(x[held_out], y[held_out]),
        test=Examples(torch.from_numpy(x_test), torch.from_numpy(dataset.y_test)),
    )


def _randomised(dataset: Dataset, train: Array, data: Data) -> Array:
    """The labels, where exactly round(noise x examples) of those at `train` are drawn anew."""
    generator = np.random.default_rng(sequence(data.seed, Purpose.LABELS))
    count = round(data.label_noise * len(train))
    labels = dataset.y_train.copy()
    labels[generator.permutation(train)[:count]] = generator.integers(0, dataset.classes, count)
    return labels


@functools.lru_cache(maxsize=1)
def _scaled(dataset: Dataset, how: str) -> list[Array]:
    return scale(how, dataset.x_train, dataset.x_test)


def scale(how: str, train: Array, *others: Array) -> list[Array]:
    """Scale inputs, all by what the training examples say; float32.

    `range`: pixels, which are unsigned integers of 8 or 16 bits, are divided by the largest value of their type, so
    that they are from 0 to 1; other numbers stay as they are. `unit-norm`: after that, each example is divided by its
    L2 norm. `standard`: after that, each feature has mean 0 and standard deviation 1 over the training examples; of
    images each channel has.
    """
    arrays = [_in_range(array) for array in (train, *others)]
    if how == "unit-norm":
        return [_unit_norm(array) for array in arrays]
    if how == "standard":
        images = train.ndim > 2
        axes = tuple(a for a in range(train.ndim) if not (a == 1 and (train.ndim == 4 or not images)))
        mean = arrays[0].mean(axis=axes, keepdims=True, dtype=np.float64)
        spread = arrays[0].std(axis=axes, keepdims=True, dtype=np.float64)
        spread[spread == 0] = 1
        return [((array - mean) / spread).astype(np.float32) for array in arrays]
    return arrays


def _in_range(array: Array) -> Array:
    largest = np.iinfo(array.dtype).max if array.dtype in (np.uint8, np.uint16) else 1
    return np.ascontiguousarray(array, dtype=np.float32) / np.float32(largest)


def _unit_norm(array: Array) -> Array:
    norms = np.sqrt(np.square(array.reshape(len(array), -1)).sum(axis=1))
    norms[norms == 0] = 1
    return np.asarray(array / norms.reshape(-1, *[1] * (array.ndim - 1)), dtype=np.float32)
