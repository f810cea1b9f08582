"""Split: the scaled tensors of a run, divided into training, validation and test examples."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tombola.utils.errors import InputError
from tombola.utils.seeds import Purpose, sequence
from tombola.zoo.datasets import scale
from tombola.zoo.datasets.dataset import Array, Dataset
from tombola.zoo.datasets.description import Data


@dataclass(frozen=True)
class ExampleSet:
    """Some rows of larger arrays: `rows`, int64; all rows if it is None. `x`: inputs, float32 of shape (any, *shape);
    `y`: labels, int64 of shape (any,)."""

    x: Tensor
    y: Tensor
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y if self.rows is None else self.rows)

    def __getitem__(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs and labels of a batch of indices into this set, not into the arrays."""
        rows = self.rows_of(batch)
        return self.x[rows], self.y[rows]

    def rows_of(self, batch: Tensor) -> Tensor:
        """The rows of the arrays for a batch of indices into this set."""
        return batch if self.rows is None else self.rows[batch]

    def to(self, device: torch.device) -> ExampleSet:
        rows = None if self.rows is None else self.rows.to(device)
        return ExampleSet(self.x.to(device), self.y.to(device), rows)


@dataclass(frozen=True)
class Split:
    """Examples to train on, to select by, and to report on. The test set is never used to select."""

    train: ExampleSet
    validation: ExampleSet
    test: ExampleSet
    black: Tensor = field(default_factory=lambda: torch.zeros(()))
    """The value of a black pixel after scaling: float32 of shape (channels,), or () for images without channels."""
    scaling: str = ""
    """How inputs were scaled, in words."""

    def to(self, device: torch.device) -> Split:
        parts = (self.train.to(device), self.validation.to(device), self.test.to(device))
        return Split(*parts, self.black.to(device), self.scaling)


def count_training_examples(dataset: Dataset, validation: int, fraction: float) -> int:
    """The number of examples to train on. Raises `InputError` unless there are both training and validation
    examples."""
    available = len(dataset.y_train)
    if not 1 <= validation < available:
        raise InputError(f"data.validation: should be from 1 to {available - 1:,}, not {validation:,}")
    return max(1, round(fraction * (available - validation)))


def check_inputs(dataset: Dataset, data: Data) -> None:
    """Raises `InputError` unless the inputs can be scaled and augmented as `data` requires."""
    scale.given_moments(dataset.inputs, data)
    if not data.augmented:
        return
    option = "flip" if data.flip else "crop"
    if len(dataset.inputs) not in (2, 3) or dataset.channels_last:
        raise InputError(
            f'data.{option}: needs images, (height, width) or (channels, height, width); "{data.name}" has inputs of '
            f"shape {dataset.inputs}"
        )
    if data.crop >= min(dataset.inputs[-2:]):
        height, width = dataset.inputs[-2:]
        raise InputError(f"data.crop: should be less than the image size, {height} x {width} pixels, not {data.crop}")


def split(dataset: Dataset, data: Data) -> Split:
    """Hold out `data.validation` training examples, drawn with `data.seed`, use `data.fraction` of the others,
    randomise `data.label_noise` of their labels, and scale all inputs.

    Raises `InputError` as `count_training_examples` and `check_inputs` do.
    """
    check_inputs(dataset, data)
    examples = count_training_examples(dataset, data.validation, data.fraction)
    order = np.random.default_rng(sequence(data.seed, Purpose.SPLIT)).permutation(len(dataset.y_train))
    held_out, train = order[: data.validation], order[data.validation :][:examples]
    by = scale.given_moments(dataset.inputs, data)
    if data.scale == "standard" and by is None:  # depends on the training examples
        by = scale.compute_moments(dataset.x_train, train)
        x_train, x_test = (scale.scale_inputs(array, data.scale, by) for array in (dataset.x_train, dataset.x_test))
    else:
        x_train, x_test = _scale_all(dataset, data.scale, by)
    x, y = torch.from_numpy(x_train), torch.from_numpy(dataset.y_train)
    labels = torch.from_numpy(_noisy_labels(dataset, train, data)) if data.label_noise else y
    return Split(
        # Training examples are not copied: replicates share the array.
        train=ExampleSet(x, labels, torch.from_numpy(train)),
        validation=ExampleSet(x[held_out], y[held_out]),
        test=ExampleSet(torch.from_numpy(x_test), torch.from_numpy(dataset.y_test)),
        black=torch.from_numpy(scale.scaled_black(dataset.inputs, by)),
        scaling=scale.describe_scaling(dataset.x_test, data.scale, by),
    )


def _noisy_labels(dataset: Dataset, train: Array, data: Data) -> Array:
    """The labels, with exactly round(noise x examples) of those at `train` redrawn."""
    generator = np.random.default_rng(sequence(data.seed, Purpose.LABELS))
    count = round(data.label_noise * len(train))
    labels = dataset.y_train.copy()
    labels[generator.permutation(train)[:count]] = generator.integers(0, dataset.classes, count)
    return labels


@functools.lru_cache(maxsize=1)
def _scale_all(dataset: Dataset, how: scale.Scale, by: scale.Moments | None) -> tuple[Array, Array]:
    """Training and test inputs, scaled independently of the split; cached, so that all splits share them."""
    return scale.scale_inputs(dataset.x_train, how, by), scale.scale_inputs(dataset.x_test, how, by)
