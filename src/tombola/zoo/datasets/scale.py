"""Scaling of inputs, in chunks of examples, so that only the result needs much memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tombola.utils.errors import InputError
from tombola.zoo.datasets.dataset import Array, pixel_maximum
from tombola.zoo.datasets.description import Data

Scale = Literal["range", "unit-norm", "standard"]

CHUNK_ELEMENTS = 2**22
"""Numbers processed at a time."""


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of each channel or feature; of all pixels for images without channels."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def scale_inputs(x: Array, how: Scale, by: Moments | None = None) -> Array:
    """Inputs (examples, *shape), scaled; float32.

    `range`: unsigned integers of 8 or 16 bits are pixels, which are divided by the largest value of their type, so
    that they are from 0 to 1; other numbers are not changed. `unit-norm`: after that, each example is divided by its
    L2 norm. `standard`: after `range`, the mean in `by` is subtracted from each feature (of images, each channel),
    which is then divided by the standard deviation.
    """
    if (how == "standard") != (by is not None):
        raise ValueError(f'only scale "standard" needs moments; scale is "{how}"')
    scale_chunk: Callable[[Array], Array] = _to_range
    if how == "unit-norm":
        scale_chunk = _unit_norm
    elif by is not None:
        shape = (1, -1, *[1] * (x.ndim - 2)) if _by_channel(x.shape[1:]) else (1,) * x.ndim
        mean, std = (np.array(numbers).reshape(shape) for numbers in (by.mean, by.std))

        def scale_chunk(part: Array) -> Array:
            return np.asarray((_to_range(part) - mean) / std)

    result = np.empty(x.shape, np.float32)
    for part in _chunks(x):
        result[part] = scale_chunk(x[part])
    return result


def scaled_pixels(inputs: tuple[int, ...], how: Scale, by: Moments | None) -> Array:
    """What `scale_inputs` makes of every pixel value from 0 to 255: float32 of shape (channels, 256), or (1, 256) for
    images (height, width). For scales that treat all pixels of a channel alike."""
    channels = inputs[0] if _by_channel(inputs) else 1
    values = np.arange(256, dtype=np.uint8).reshape(256, *[1] * len(inputs))
    scaled = scale_inputs(np.repeat(values, channels, axis=1), how, by)
    return np.ascontiguousarray(scaled.reshape(256, channels).T)


def describe_scaling(x: Array, how: Scale, by: Moments | None = None) -> str:
    """What `scale_inputs` does to inputs, so that users can scale their own examples."""
    most = pixel_maximum(x.dtype)
    words = f"divided by {most:,}" if most > 1 else f"numbers such as from {x.min():g} to {x.max():g}"
    if how == "unit-norm":
        words += ", then each example divided by its L2 norm"
    if by is not None:
        mean, std = (", ".join(f"{number:.6g}" for number in numbers) for numbers in (by.mean, by.std))
        words += f", then the mean {mean} subtracted, then divided by the standard deviation {std}"
        words += " (channel by channel)" if len(by.mean) > 1 else ""
    return words


def compute_moments(x: Array, train: Array) -> Moments:
    """The mean and standard deviation, after `range`, of each feature (of images, each channel) of the examples at
    `train`. A standard deviation of 0 is replaced by 1."""
    if x.dtype == np.uint8:
        mean, std = _moments_of_bytes(x, train)
    else:
        values = _to_range(x[train])
        axes = tuple(axis for axis in range(x.ndim) if not (axis == 1 and _by_channel(x.shape[1:])))
        mean, std = (np.atleast_1d(method(values, axis=axes, dtype=np.float64)) for method in (np.mean, np.std))
    std = np.where(std == 0, 1, std)
    return Moments(tuple(mean.tolist()), tuple(std.tolist()))


def _moments_of_bytes(x: Array, train: Array) -> tuple[Array, Array]:
    """By counting how often each value occurs, without a copy of all examples."""
    channels = x.shape[1] if _by_channel(x.shape[1:]) else 1
    counts = np.zeros((channels, 256), np.int64)
    offsets = 256 * np.arange(channels)[:, None]  # of each channel's counts
    for part in _chunks(x, len(train)):
        indices = x[train[part]].reshape(-1, channels, x[0].size // channels) + offsets
        counts += np.bincount(indices.ravel(), minlength=counts.size).reshape(counts.shape)
    values = _to_range(np.arange(256, dtype=np.uint8)).astype(np.float64)
    total = counts[0].sum()
    mean = (counts * values).sum(axis=1) / total
    variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / total
    return mean, np.sqrt(variance)


def given_moments(inputs: tuple[int, ...], data: Data) -> Moments | None:
    """The moments given in `data`, for examples of shape `inputs`; None if there are none. Raises `InputError` unless
    there is one mean, and one standard deviation above 0, for each channel or feature."""
    if data.mean is None and data.std is None:
        return None
    if data.mean is None or data.std is None or data.scale != "standard":
        raise InputError('data.mean: needs data.std and data.scale = "standard", and data.std needs data.mean')
    by_channel = _by_channel(inputs)
    wanted = inputs[0] if by_channel else 1
    for name, numbers in (("mean", data.mean), ("std", data.std)):
        if by_channel and len(inputs) == 1 and len(numbers) == 1:
            continue  # one for all features
        if len(numbers) != wanted:
            counts = {1: "one for each feature, or one for all", 3: "one for each channel"}
            what = counts.get(len(inputs), "images without channels have one")
            raise InputError(f"data.{name}: numbers should be {wanted:,} ({what}), not {len(numbers):,}")
    if min(data.std) <= 0:
        raise InputError(f"data.std: should be above 0, not {min(data.std):g}")
    return Moments(data.mean, data.std)


def scaled_black(inputs: tuple[int, ...], by: Moments | None) -> Array:
    """The value of a black pixel (0) after scaling: float32 of shape (channels,), or () without channels."""
    shape = inputs[:1] if _by_channel(inputs) else ()
    if by is None:
        return np.zeros(shape, np.float32)
    value = ((0 - np.array(by.mean)) / np.array(by.std)).astype(np.float32)
    return np.array(np.broadcast_to(value if shape else value[0], shape))


def _by_channel(inputs: tuple[int, ...]) -> bool:
    """Whether inputs are (channels, height, width) or (features,) rather than (height, width)."""
    return len(inputs) in (1, 3)


def _chunks(x: Array, examples: int | None = None) -> Iterator[slice]:
    """Consecutive examples, `CHUNK_ELEMENTS` numbers at a time."""
    examples = len(x) if examples is None else examples
    step = max(1, CHUNK_ELEMENTS // max(1, x[:1].size))
    return (slice(first, first + step) for first in range(0, examples, step))


def _to_range(x: Array) -> Array:
    return np.ascontiguousarray(x, dtype=np.float32) / np.float32(pixel_maximum(x.dtype))


def _unit_norm(x: Array) -> Array:
    x = _to_range(x)
    with np.errstate(over="ignore"):
        norms = np.sqrt(np.square(x.reshape(len(x), -1)).sum(axis=1))
    if not np.isfinite(norms).all():
        raise InputError(f"data.scale: unit-norm needs inputs whose squares fit float32, not {np.abs(x).max():g}")
    norms[norms == 0] = 1
    return np.asarray(x / norms.reshape(-1, *[1] * (x.ndim - 1)), dtype=np.float32)
