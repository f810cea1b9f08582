from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.support.datasets import describe_data, make_dataset
from tests.support.errors import raises_input_error
from tombola.zoo.datasets import load
from tombola.zoo.datasets.dataset import Array
from tombola.zoo.datasets.description import Data
from tombola.zoo.datasets.scale import (
    Moments,
    Scale,
    compute_moments,
    describe_scaling,
    given_moments,
    scale_inputs,
    scaled_black,
)
from tombola.zoo.datasets.split import split


def test_validation_examples_are_held_out_of_training() -> None:
    dataset = make_dataset(np.arange(20, dtype=np.float32).reshape(20, 1))
    parts = split(dataset, describe_data(dataset))
    inputs = (part[torch.arange(len(part))][0] for part in (parts.train, parts.validation))
    train, validation = (set(x.flatten().tolist()) for x in inputs)
    assert (len(train), len(validation)) == (14, 6)
    assert train | validation == set(range(20))
    for x, y in zip(parts.train.x.flatten().tolist(), parts.train.y.tolist(), strict=True):
        assert y == int(x) % 3
    other = split(dataset, describe_data(dataset, seed=1))
    assert set(other.validation.x.flatten().tolist()) != validation


@pytest.mark.parametrize("validation", [0, 20, 21])
def test_training_and_validation_examples_are_both_needed(validation: int) -> None:
    dataset = make_dataset(np.zeros((20, 1), dtype=np.float32))
    with raises_input_error("data.validation", "1 to 19", validation):
        split(dataset, describe_data(dataset, validation=validation))


def test_a_fraction_of_the_training_examples_is_a_subset_of_a_larger_one() -> None:
    digits = load("digits")
    full, half, tenth = (
        split(digits, describe_data(digits, validation=200, fraction=fraction)) for fraction in (1.0, 0.5, 0.1)
    )
    assert [len(part.train) for part in (full, half, tenth)] == [997, 498, 100]
    rows = [set(part.train.rows_of(torch.arange(len(part.train))).tolist()) for part in (full, half, tenth)]
    assert rows[2] < rows[1] < rows[0]
    assert torch.equal(half.validation.x, full.validation.x)
    assert len(split(digits, describe_data(digits, validation=200, fraction=1e-9)).train) == 1


def test_label_noise_changes_training_labels_only() -> None:
    digits = load("digits")
    before = digits.y_train.copy()
    clean, noisy, again, other_seed, all_random = (
        split(digits, describe_data(digits, validation=200, label_noise=noise, seed=seed))
        for noise, seed in [(0.0, 0), (0.4, 0), (0.4, 0), (0.4, 4), (1.0, 0)]
    )
    indices = torch.arange(len(clean.train))
    labels, drawn, random_labels = (parts.train[indices][1] for parts in (clean, noisy, all_random))
    changed = int((labels != drawn).sum())
    assert 0.8 * 0.4 * 997 < changed <= round(0.4 * 997)  # one in ten is drawn as it was
    assert torch.equal(noisy.validation.y, clean.validation.y)
    assert torch.equal(noisy.test.y, clean.test.y)
    assert torch.equal(again.train[indices][1], drawn)
    assert not torch.equal(other_seed.train.y, noisy.train.y)
    assert (digits.y_train == before).all()
    assert 0.03 < (random_labels == labels).float().mean() < 0.2


def test_a_given_mean_is_shared_by_all_splits_and_a_computed_one_is_not() -> None:
    dataset = make_dataset(np.random.default_rng(0).integers(0, 256, (20, 3, 4, 4), dtype=np.uint8))
    given = {"scale": "standard", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.1)}
    one, other = (split(dataset, describe_data(dataset, seed=seed, **given)) for seed in (0, 1))
    assert one.train.x.data_ptr() == other.train.x.data_ptr()
    torch.testing.assert_close(one.black, torch.tensor([-2.5, -2.0, -3.0]))
    computed = split(dataset, describe_data(dataset, scale="standard"))
    assert not torch.equal(computed.train.x, one.train.x)
    x, _ = computed.train[torch.arange(len(computed.train))]
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-6, rtol=0)
    assert computed.black.shape == (3,)


@pytest.mark.parametrize(("shape", "black"), [((20, 3, 4, 4), [0.0, 0.0, 0.0]), ((20, 4, 4), 0.0)])
@pytest.mark.parametrize("scale", ["range", "unit-norm"])
def test_black_stays_zero_if_no_mean_is_subtracted(shape: tuple[int, ...], black: object, scale: str) -> None:
    dataset = make_dataset(np.ones(shape, np.uint8))
    assert split(dataset, describe_data(dataset, scale=scale)).to(torch.device("cpu")).black.tolist() == black


@pytest.mark.parametrize(
    ("shape", "changes", "facts"),
    [
        ((20, 4), {"flip": True}, ["data.flip", "(channels, height, width)", "(4,)"]),
        ((20, 4), {"crop": 1}, ["data.crop", "(channels, height, width)", "(4,)"]),
        ((20, 9, 9, 3), {"flip": True}, ["data.flip", "(channels, height, width)", "(9, 9, 3)"]),
        ((20, 4, 6), {"crop": 4}, ["data.crop", "4 x 6 pixels", "not 4"]),
    ],
)
def test_invalid_augmentation_is_refused(shape: tuple[int, ...], changes: dict[str, Any], facts: list[str]) -> None:
    dataset = make_dataset(np.zeros(shape, np.uint8))
    with raises_input_error(*facts):
        split(dataset, describe_data(dataset, **changes))


def scale(how: Scale, train: Array, *others: Array) -> list[Array]:
    """All arrays, scaled with the moments of `train`."""
    by = compute_moments(train, np.arange(len(train))) if how == "standard" else None
    return [scale_inputs(x, how, by) for x in (train, *others)]


def test_pixels_are_scaled_to_at_most_one_and_other_numbers_are_not_changed() -> None:
    (pixels,) = scale("range", np.array([[0, 51, 255]], dtype=np.uint8))
    np.testing.assert_allclose(pixels, [[0, 0.2, 1]])
    (floats,) = scale("range", np.array([[0.5, -3.0]]))
    np.testing.assert_array_equal(floats, np.array([[0.5, -3.0]], dtype=np.float32))
    (integers,) = scale("range", np.array([[0, 51, 255]]))  # int64 values are not pixels
    np.testing.assert_array_equal(integers, [[0, 51, 255]])
    assert pixels.dtype == floats.dtype == integers.dtype == np.float32


def test_norms_that_overflow_are_refused() -> None:
    with raises_input_error("data.scale", "unit-norm", "1e+30"):
        scale_inputs(np.full((2, 3), 1e30, np.float32), "unit-norm")


def test_unit_norm_gives_every_example_a_norm_of_one() -> None:
    generator = np.random.default_rng(0)
    x = generator.random((10, 3, 4))
    x[0] = 0
    (scaled,) = scale("unit-norm", x)
    np.testing.assert_allclose(np.linalg.norm(scaled.reshape(10, -1), axis=1), [0] + [1] * 9, rtol=1e-6)


@pytest.mark.parametrize("shape", [(50, 6), (50, 6, 7), (50, 3, 6, 7)])
def test_standard_scaling_uses_the_training_examples_and_is_by_feature_or_channel(shape: tuple[int, ...]) -> None:
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
def test_moments_of_bytes_equal_mean_and_standard_deviation(shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(1)
    x = generator.integers(0, 256, shape, dtype=np.uint8)
    train = generator.permutation(60)[:41]
    axes = {2: (0,), 3: (0, 1, 2), 4: (0, 2, 3)}[len(shape)]
    chosen = x[train].astype(np.float64) / 255
    by = compute_moments(x, train)
    np.testing.assert_allclose(by.mean, np.atleast_1d(chosen.mean(axis=axes)), rtol=1e-7)
    np.testing.assert_allclose(by.std, np.atleast_1d(chosen.std(axis=axes)), rtol=1e-7)


def test_scaling_in_chunks_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).integers(0, 256, (50, 3, 4, 4), dtype=np.uint8)
    ways: list[Scale] = ["range", "unit-norm", "standard"]
    whole = [scale(how, x)[0] for how in ways]
    monkeypatch.setattr("tombola.zoo.datasets.scale.CHUNK_ELEMENTS", 7 * 48)
    for how, expected in zip(ways, whole, strict=True):
        np.testing.assert_array_equal(scale(how, x)[0], expected)


@pytest.mark.parametrize(("how", "by"), [("standard", None), ("range", Moments((0.0,), (1.0,)))])
def test_only_standard_scaling_takes_moments(how: Scale, by: Moments | None) -> None:
    with pytest.raises(ValueError, match="moments"):
        scale_inputs(np.zeros((3, 4)), how, by)


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
def test_a_given_mean_and_standard_deviation_are_used(inputs: tuple[int, ...], mean: tuple[float, ...]) -> None:
    std = tuple(value + 1 for value in mean)
    by = given_moments(inputs, data(mean=mean, std=std))
    assert by == Moments(mean, std)
    x = np.random.default_rng(0).integers(0, 256, (5, *inputs), dtype=np.uint8)
    x[0] = 0
    shape = (-1, *[1] * (len(inputs) - 1))
    expected = (x / 255 - np.reshape(mean, shape)) / np.reshape(std, shape)
    result = scale_inputs(x, "standard", by)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    black = scaled_black(inputs, by)
    assert black.shape == (inputs[:1] if len(inputs) != 2 else ())
    if black.shape:
        black = black.reshape(shape)
    np.testing.assert_array_equal(result[0], np.broadcast_to(black, inputs))


@pytest.mark.parametrize(
    ("inputs", "changes", "facts"),
    [
        ((3, 8, 8), {"mean": (0.5,), "std": (1.0,) * 3}, ["data.mean", "3 (one for each channel)", "not 1"]),
        ((3, 8, 8), {"mean": (0.5,) * 3, "std": (1.0,)}, ["data.std", "3 (one for each channel)", "not 1"]),
        ((8, 8), {"mean": (0.5,) * 3, "std": (1.0,) * 3}, ["data.mean", "should be 1", "not 3"]),
        ((4,), {"mean": (0.5,) * 3, "std": (1.0,) * 3}, ["data.mean", "4 (one for each feature", "not 3"]),
        ((8, 8), {"mean": (0.5,), "std": (0.0,)}, ["data.std", "above 0", "not 0"]),
        ((8, 8), {"mean": (0.5,)}, ["data.mean", "data.std", 'data.scale = "standard"']),
        ((8, 8), {"mean": (0.5,), "std": (1.0,), "scale": "range"}, ["data.mean", 'data.scale = "standard"']),
    ],
)
def test_invalid_moments_are_refused(inputs: tuple[int, ...], changes: dict[str, Any], facts: list[str]) -> None:
    with raises_input_error(*facts):
        given_moments(inputs, data(**changes))


def test_the_description_of_scaling_has_all_numbers() -> None:
    pixels, floats = np.array([[0, 51, 255]], np.uint8), np.array([[0.0, 0.5, 1.0]])
    assert "255" in describe_scaling(pixels, "range")
    unit_norm = describe_scaling(pixels.astype(np.uint16), "unit-norm")
    assert "65,535" in unit_norm
    assert "L2 norm" in unit_norm
    assert "from 0 to 1" in describe_scaling(floats, "range")
    standard = describe_scaling(pixels, "standard", Moments((0.5, 0.25), (1.0, 2.0)))
    assert all(fact in standard for fact in ("255", "mean 0.5, 0.25", "deviation 1, 2", "channel by channel"))
