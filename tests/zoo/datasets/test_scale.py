from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tombola.utils.errors import InputError
from tombola.zoo.datasets.dataset import Array
from tombola.zoo.datasets.description import Data
from tombola.zoo.datasets.scale import Moments, Scale, black, given_moments, in_words, moments, scaled


def scale(how: Scale, train: Array, *others: Array) -> list[Array]:
    """All scaled by what `train` says."""
    by = moments(train, np.arange(len(train))) if how == "standard" else None
    return [scaled(x, how, by) for x in (train, *others)]


def test_pixels_are_scaled_to_at_most_one_and_floats_left_alone() -> None:
    (pixels,) = scale("range", np.array([[0, 51, 255]], dtype=np.uint8))
    np.testing.assert_allclose(pixels, [[0, 0.2, 1]])
    (floats,) = scale("range", np.array([[0.5, -3.0]]))
    np.testing.assert_array_equal(floats, np.array([[0.5, -3.0]], dtype=np.float32))
    (integers,) = scale("range", np.array([[0, 51, 255]]))  # int64 are numbers, not pixels
    np.testing.assert_array_equal(integers, [[0, 51, 255]])
    assert pixels.dtype == floats.dtype == integers.dtype == np.float32


def test_unit_norm_makes_every_example_of_length_one() -> None:
    generator = np.random.default_rng(0)
    x = generator.random((10, 3, 4))
    x[0] = 0
    (scaled,) = scale("unit-norm", x)
    np.testing.assert_allclose(np.linalg.norm(scaled.reshape(10, -1), axis=1), [0] + [1] * 9, rtol=1e-6)


@pytest.mark.parametrize("shape", [(50, 6), (50, 6, 7), (50, 3, 6, 7)])
def test_standard_is_by_feature_or_channel_and_by_training_examples_alone(shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(0)
    train, other = generator.normal(3, 5, shape), generator.normal(100, 1, shape)
    scaled, scaled_other = scale("standard", train, other)
    axes = {2: (0,), 3: (0, 1, 2), 4: (0, 2, 3)}[len(shape)]
    np.testing.assert_allclose(scaled.mean(axis=axes), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=axes), 1, rtol=1e-4)
    assert scaled_other.mean() > 10


def test_a_constant_feature_stays_finite() -> None:
    (scaled,) = scale("standard", np.ones((10, 2)))
    assert not scaled.any()


@pytest.mark.parametrize("shape", [(60, 6), (60, 6, 7), (60, 3, 6, 7)])
def test_bytes_are_counted_to_the_same_moments_as_by_the_textbook(shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(1)
    x = generator.integers(0, 256, shape, dtype=np.uint8)
    train = generator.permutation(60)[:41]
    axes = {2: (0,), 3: (0, 1, 2), 4: (0, 2, 3)}[len(shape)]
    chosen = x[train].astype(np.float64) / 255
    by = moments(x, train)
    np.testing.assert_allclose(by.mean, np.atleast_1d(chosen.mean(axis=axes)), rtol=1e-7)
    np.testing.assert_allclose(by.std, np.atleast_1d(chosen.std(axis=axes)), rtol=1e-7)


def test_scaling_by_stretches_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).integers(0, 256, (50, 3, 4, 4), dtype=np.uint8)
    ways: list[Scale] = ["range", "unit-norm", "standard"]
    whole = [scale(how, x)[0] for how in ways]
    monkeypatch.setattr("tombola.zoo.datasets.scale.ELEMENTS", 7 * 48)
    for how, expected in zip(ways, whole, strict=True):
        np.testing.assert_array_equal(scale(how, x)[0], expected)


@pytest.mark.parametrize(("how", "by"), [("standard", None), ("range", Moments((0.0,), (1.0,)))])
def test_moments_and_standard_go_together(how: Scale, by: Moments | None) -> None:
    with pytest.raises(ValueError, match='moments go with scale "standard"'):
        scaled(np.zeros((3, 4)), how, by)


def data(**changes: Any) -> Data:
    return Data(**{"name": "any", "digest": "", "seed": 0, "validation": 1, "scale": "standard", **changes})


@pytest.mark.parametrize(
    ("inputs", "mean"),
    [
        ((3, 8, 8), (0.5, 0.4, 0.3)),
        ((8, 8), (0.5,)),
        ((4,), (0.5,)),
        ((4,), (0.5, 0.4, 0.3, 0.2)),
        ((1, 8, 8), (0.1,)),
    ],
)
def test_a_given_mean_and_deviation_are_taken(inputs: tuple[int, ...], mean: tuple[float, ...]) -> None:
    std = tuple(value + 1 for value in mean)
    by = given_moments(inputs, data(mean=mean, std=std))
    assert by == Moments(mean, std)
    x = np.random.default_rng(0).integers(0, 256, (5, *inputs), dtype=np.uint8)
    x[0] = 0
    shape = (-1, *[1] * (len(inputs) - 1))
    expected = (x / 255 - np.reshape(mean, shape)) / np.reshape(std, shape)
    result = scaled(x, "standard", by)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    ground = black(inputs, by)
    assert ground.shape == (inputs[:1] if len(inputs) != 2 else ())
    if ground.shape:
        ground = ground.reshape(shape)
    np.testing.assert_array_equal(result[0], np.broadcast_to(ground, inputs))


@pytest.mark.parametrize(
    ("inputs", "changes", "message"),
    [
        (
            (3, 8, 8),
            {"mean": (0.5,), "std": (1.0,) * 3},
            "data.mean: numbers should be 3 (one for each channel), not 1",
        ),
        (
            (3, 8, 8),
            {"mean": (0.5,) * 3, "std": (1.0,)},
            "data.std: numbers should be 3 (one for each channel), not 1",
        ),
        (
            (8, 8),
            {"mean": (0.5,) * 3, "std": (1.0,) * 3},
            "data.mean: numbers should be 1 (images without channels have one), not 3",
        ),
        (
            (4,),
            {"mean": (0.5,) * 3, "std": (1.0,) * 3},
            "data.mean: numbers should be 4 (one for each feature, or one for all), not 3",
        ),
        ((8, 8), {"mean": (0.5,), "std": (0.0,)}, "data.std: should be above 0, not 0"),
        ((8, 8), {"mean": (0.5,)}, 'data.mean: goes together with data.std and data.scale = "standard"'),
        (
            (8, 8),
            {"mean": (0.5,), "std": (1.0,), "scale": "range"},
            'data.mean: goes together with data.std and data.scale = "standard"',
        ),
    ],
)
def test_an_unfit_mean_or_deviation_is_named(inputs: tuple[int, ...], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        given_moments(inputs, data(**changes))
    assert str(caught.value) == message


def test_scaling_is_said_so_that_somebody_can_do_the_same() -> None:
    pixels, floats = np.array([[0, 51, 255]], np.uint8), np.array([[0.0, 0.5, 1.0]])
    assert in_words(pixels, "range") == "divided by 255"
    assert in_words(pixels.astype(np.uint16), "unit-norm").startswith("divided by 65,535, then each example divided")
    assert in_words(floats, "range") == "numbers such as from 0 to 1"
    words = in_words(pixels, "standard", Moments((0.5, 0.25), (1.0, 2.0)))
    assert words == "divided by 255, then less 0.5, 0.25, divided by 1, 2 (channel by channel)"
