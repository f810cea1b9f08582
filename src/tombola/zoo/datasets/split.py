"""Split: the tensors a run works on, divided into training, validation and test, and scaled."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tombola.utils.errors import InputError
from tombola.utils.seeds import Purpose, sequence
from tombola.zoo.datasets.dataset import Array, Dataset
from tombola.zoo.datasets.description import Data
from tombola.zoo.datasets.scale import Moments, Scale, black, given_moments, in_words, moments, scaled


@dataclass(frozen=True)
class ExampleSet:
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

    def to(self, device: torch.device) -> ExampleSet:
        rows = None if self.rows is None else self.rows.to(device)
        return ExampleSet(self.x.to(device), self.y.to(device), rows)


@dataclass(frozen=True)
class Split:
    """What to train on, what to choose by, and what to report on. The last is never used to choose."""

    train: ExampleSet
    validation: ExampleSet
    test: ExampleSet
    black: Tensor = field(default_factory=lambda: torch.zeros(()))
    """What a black pixel became by scaling: float32 of shape (channels,), or () of images without channels."""
    scaling: str = ""
    """What was done to inputs, in words."""

    def to(self, device: torch.device) -> Split:
        parts = (self.train.to(device), self.validation.to(device), self.test.to(device))
        return Split(*parts, self.black.to(device), self.scaling)


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


def check_inputs(dataset: Dataset, data: Data) -> None:
    """Raises `InputError` unless the inputs can be scaled and augmented as `data` says."""
    given_moments(dataset.inputs, data)
    if not data.augmented:
        return
    option = "flip" if data.flip else "crop"
    if len(dataset.inputs) not in (2, 3):
        raise InputError(
            f'data.{option}: needs images, (height, width) or (channels, height, width); "{data.name}" has inputs of '
            f"shape {dataset.inputs}"
        )
    if data.crop >= min(dataset.inputs[-2:]):
        height, width = dataset.inputs[-2:]
        raise InputError(f"data.crop: should be less than the images' {height} x {width} pixels, not {data.crop}")


def split(dataset: Dataset, data: Data) -> Split:
    """Hold out `data.validation` training examples, drawn by `data.seed`, take `data.fraction` of the others,
    randomise `data.label_noise` of their labels, and scale all inputs.

    Raises `InputError` when nothing would be left to train on, and as `check_inputs` does.
    """
    check_inputs(dataset, data)
    examples = training_examples(dataset, data.validation, data.fraction)
    order = np.random.default_rng(sequence(data.seed, Purpose.SPLIT)).permutation(len(dataset.y_train))
    held_out, train = order[: data.validation], order[data.validation :][:examples]
    by = given_moments(dataset.inputs, data)
    if data.scale == "standard" and by is None:  # depends on which examples train
        by = moments(dataset.x_train, train)
        x_train, x_test = (scaled(array, data.scale, by) for array in (dataset.x_train, dataset.x_test))
    else:
        x_train, x_test = _shared(dataset, data.scale, by)
    x, y = torch.from_numpy(x_train), torch.from_numpy(dataset.y_train)
    labels = torch.from_numpy(_randomised(dataset, train, data)) if data.label_noise else y
    return Split(
        # The training examples, most of all, stay where they are: replicates share them.
        train=ExampleSet(x, labels, torch.from_numpy(train)),
        validation=ExampleSet(x[held_out], y[held_out]),
        test=ExampleSet(torch.from_numpy(x_test), torch.from_numpy(dataset.y_test)),
        black=torch.from_numpy(black(dataset.inputs, by)),
        scaling=in_words(dataset.x_test, data.scale, by),
    )


def _randomised(dataset: Dataset, train: Array, data: Data) -> Array:
    """The labels, where exactly round(noise x examples) of those at `train` are drawn anew."""
    generator = np.random.default_rng(sequence(data.seed, Purpose.LABELS))
    count = round(data.label_noise * len(train))
    labels = dataset.y_train.copy()
    labels[generator.permutation(train)[:count]] = generator.integers(0, dataset.classes, count)
    return labels


@functools.lru_cache(maxsize=1)
def _shared(dataset: Dataset, how: Scale, by: Moments | None) -> tuple[Array, Array]:
    """Training and test inputs, scaled without regard to which examples train: the same in every split."""
    return scaled(dataset.x_train, how, by), scaled(dataset.x_test, how, by)
