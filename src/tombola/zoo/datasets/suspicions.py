"""What is probably, but not certainly, wrong with a user's dataset: a line each, for a warning."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from tombola.utils.text import plural
from tombola.zoo.datasets.dataset import Array, Dataset, pixel_maximum
from tombola.zoo.datasets.streaming.streamed_dataset import AnyDataset, StreamedDataset

LARGE = 100
"""Unscaled inputs as large as this make training unstable, and so does such a ratio of features."""

SAMPLE = 1000
"""The number of examples looked at, where all would take long."""

REPEATED = 0.01
"""The fraction of test examples that may also be training examples: published datasets have a few such."""


def suspicions(dataset: AnyDataset, scale: str) -> list[str]:
    """What the user should check in a dataset whose inputs are scaled by `scale`; and the reader's own notes. Nothing
    is said about images that are streamed."""
    if isinstance(dataset, StreamedDataset):
        return [*dataset.notes, *_about_classes(dataset)]
    return [*dataset.notes, *_about_inputs(dataset, scale), *_about_classes(dataset), *_repeated(dataset)]


def _about_inputs(dataset: Dataset, scale: str) -> Iterator[str]:
    x, shape = dataset.x_train, dataset.inputs
    if dataset.channels_last:
        yield (
            f"examples of shape {shape} are read as {shape[0]} channels of {shape[1]} x {shape[2]} pixels; if the "
            "channels are last, move them: x.transpose(0, 3, 1, 2)"
        )
    low, high = float(x.min()), float(x.max())
    most = pixel_maximum(x.dtype)
    if low == high:
        yield f"all training inputs are {low:g}"
    elif most > 1 and 4 * high <= most and (scale == "range" or x.dtype == np.uint8):
        yield (
            f"all inputs are at most {high:g} of {most:,}, the most of {x.dtype}, and are divided by that; if "
            f"{high:g} is white, stretch them (12-bit images: times 16) or save them as floats from 0 to 1"
        )
    elif most == 1 and scale == "range" and max(abs(low), abs(high)) >= LARGE:
        yield (
            f"inputs are {x.dtype} from {low:g} to {high:g}, which are not scaled; set data.scale to standard, or "
            "save pixels as uint8"
        )
    elif most == 1 and scale != "standard" and len(shape) == 1 and (ratio := _ratio_of_features(x)) >= LARGE:
        yield f"features differ {ratio:,.0f} times in their standard deviations; set data.scale to standard"
    train, test = (_sample(each).astype(np.float64) for each in (x, dataset.x_test))
    sizes = [float(np.abs(each).mean()) for each in (train, test)]
    deviations = [float(each.std()) for each in (train, test)]
    if max(sizes) > 10 * min(sizes) or abs(train.mean() - test.mean()) > min(deviations) > 0:
        yield (
            f"test inputs have mean {test.mean():.2g} and standard deviation {deviations[1]:.2g}, training inputs "
            f"{train.mean():.2g} and {deviations[0]:.2g}; are both prepared in the same way?"
        )


def _ratio_of_features(x: Array) -> float:
    """The largest standard deviation of a feature, divided by the smallest of those that vary."""
    deviations = _sample(x).astype(np.float64).std(axis=0)
    varying = deviations[deviations > 0]
    return float(varying.max() / varying.min()) if varying.size else 1.0


def _sample(x: Array) -> Array:
    return x[:: max(1, len(x) // SAMPLE)]


def _about_classes(dataset: AnyDataset) -> Iterator[str]:
    counts = np.bincount(dataset.y_train)
    unused = np.flatnonzero(counts == 0)
    if unused.size:
        tested = int(np.isin(dataset.y_test, unused).sum())
        also = f", which {tested:,} test examples belong to" if tested else ""
        others = f" or {plural(unused.size - 1, 'other')}" if unused.size > 1 else ""
        yield (
            f"labels from 0 to {len(counts) - 1} make {len(counts)} classes, but no training example has label "
            f"{unused[0]}{others}{also}; number the classes from 0, without gaps"
        )
    elif 2 * len(counts) > len(dataset.y_train):
        yield f"{len(dataset.y_train):,} training examples have {len(counts):,} classes; are the labels classes?"


def _repeated(dataset: Dataset) -> Iterator[str]:
    train = {_digest(example) for example in dataset.x_train}
    test = dataset.x_test.astype(dataset.x_train.dtype, copy=False)
    repeated = sum(_digest(example) in train for example in test)
    if repeated > REPEATED * len(test):
        yield (
            f"{repeated:,} of {len(test):,} test examples have the same inputs as training examples, so test "
            "accuracies are too good"
        )


def _digest(example: Array) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(example).tobytes(), digest_size=16).digest()
