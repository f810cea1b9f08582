"""Split: the scaled tensors of a run, divided into training, validation and test examples."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tombola.utils.errors import InputError
from tombola.utils.seeds import Purpose, sequence
from tombola.zoo.batches import permute_blocks
from tombola.zoo.datasets import scale
from tombola.zoo.datasets.dataset import Array, Dataset
from tombola.zoo.datasets.description import Data
from tombola.zoo.datasets.example_set import ExampleSet, SplitExamples
from tombola.zoo.datasets.streaming.image_reader import ImageReader
from tombola.zoo.datasets.streaming.image_source import ImageSource
from tombola.zoo.datasets.streaming.streamed_dataset import AnyDataset, StreamedDataset
from tombola.zoo.datasets.streaming.streamed_examples import StreamedExamples


@dataclass(frozen=True)
class Split:
    """Examples to train on, to select by, and to report on. The test set is never used to select."""

    train: SplitExamples
    validation: SplitExamples
    test: SplitExamples
    black: Tensor = field(default_factory=lambda: torch.zeros(()))
    """The value of a black pixel after scaling: float32 of shape (channels,), or () for images without channels."""
    scaling: str = ""
    """How inputs were scaled, in words."""

    def to(self, device: torch.device) -> Split:
        parts = (self.train.to(device), self.validation.to(device), self.test.to(device))
        return Split(*parts, self.black.to(device), self.scaling)


def count_training_examples(labels: Array, validation: int, fraction: float) -> int:
    """The number of examples to train on, of those with these labels. Raises `InputError` unless there are both
    training and validation examples."""
    available = len(labels)
    if not 1 <= validation < available:
        raise InputError(f"data.validation: should be from 1 to {available - 1:,}, not {validation:,}")
    return max(1, round(fraction * (available - validation)))


def check_inputs(dataset: AnyDataset, data: Data) -> None:
    """Raises `InputError` unless the inputs can be scaled and augmented as `data` requires."""
    scale.given_moments(dataset.inputs, data)
    if not data.augmented:
        return
    option = "flip" if data.flip else "crop" if data.crop else "resized_crop"
    if len(dataset.inputs) not in (2, 3) or dataset.channels_last:
        raise InputError(
            f'data.{option}: needs images, (height, width) or (channels, height, width); "{data.name}" has inputs of '
            f"shape {dataset.inputs}"
        )
    height, width = dataset.inputs[-2:]
    if data.crop >= min(height, width):
        raise InputError(f"data.crop: should be less than the image size, {height} x {width} pixels, not {data.crop}")
    if data.resized_crop is not None and data.resized_crop > min(height, width):
        raise InputError(
            f"data.resized_crop: should be at most the image size, {height} x {width} pixels, not {data.resized_crop}"
        )


def split(dataset: AnyDataset, data: Data) -> Split:
    """Hold out `data.validation` training examples, drawn with `data.seed`, use `data.fraction` of the others,
    randomise `data.label_noise` of their labels, and scale all inputs.

    Raises `InputError` as `count_training_examples` and `check_inputs` do.
    """
    check_inputs(dataset, data)
    examples = count_training_examples(dataset.y_train, data.validation, data.fraction)
    generator = np.random.default_rng(sequence(data.seed, Purpose.SPLIT))
    if isinstance(dataset, StreamedDataset) and dataset.train.blocks is not None:
        order = permute_blocks(generator, dataset.train.blocks)  # few blocks have examples to validate on
    else:
        order = generator.permutation(len(dataset.y_train))
    held_out, train = order[: data.validation], order[data.validation :][:examples]
    labels = _noisy_labels(dataset, train, data) if data.label_noise else dataset.y_train
    by = scale.given_moments(dataset.inputs, data)
    if isinstance(dataset, StreamedDataset):
        return _split_streamed(dataset, data, by, held_out, train, labels)
    if data.scale == "standard" and by is None:  # depends on the training examples
        by = scale.compute_moments(dataset.x_train, train)
        x_train, x_test = (scale.scale_inputs(array, data.scale, by) for array in (dataset.x_train, dataset.x_test))
    else:
        x_train, x_test = _scale_all(dataset, data.scale, by)
    x, y = torch.from_numpy(x_train), torch.from_numpy(dataset.y_train)
    centre = data.resized_crop
    return Split(
        # Training examples are not copied: replicates share the array.
        train=ExampleSet(x, torch.from_numpy(labels), torch.from_numpy(train), centre),
        validation=ExampleSet(x[held_out], y[held_out], centre=centre),
        test=ExampleSet(torch.from_numpy(x_test), torch.from_numpy(dataset.y_test), centre=centre),
        black=torch.from_numpy(scale.scaled_black(dataset.inputs, by)),
        scaling=scale.describe_scaling(dataset.x_test, data.scale, by),
    )


def _split_streamed(
    dataset: StreamedDataset, data: Data, by: scale.Moments | None, held_out: Array, train: Array, labels: Array
) -> Split:
    table = torch.from_numpy(scale.scaled_pixels(dataset.inputs, data.scale, by))

    def examples(source: ImageSource, rows: Array, of: Array, horizon: int = 0) -> StreamedExamples:
        reader = ImageReader(source, dataset.inputs, dataset.size, horizon)
        y = torch.from_numpy(of[rows])
        return StreamedExamples(reader, rows, y, table, data.resized_crop, data.shuffle_buffer)

    dataset.train.keep(2 * data.shuffle_buffer)
    horizon = data.shuffle_buffer // 2 if dataset.train.blocks is not None else 0
    return Split(
        # At the end of a buffer, the blocks of the next one are read before they are needed.
        train=examples(dataset.train, train, labels, horizon),
        validation=examples(dataset.train, held_out, dataset.y_train),
        test=examples(dataset.test, np.arange(len(dataset.y_test)), dataset.y_test),
        black=torch.from_numpy(scale.scaled_black(dataset.inputs, by)),
        scaling=scale.describe_scaling(np.zeros(1, np.uint8), data.scale, by),
    )


def _noisy_labels(dataset: AnyDataset, train: Array, data: Data) -> Array:
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
