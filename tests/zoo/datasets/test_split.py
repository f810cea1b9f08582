from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.zoo.datasets.helpers import dataset, described
from tombola.utils.errors import InputError
from tombola.zoo.datasets.registry import load
from tombola.zoo.datasets.split import split


def test_validation_examples_are_held_out_of_training() -> None:
    whole = dataset(np.arange(20, dtype=np.float32).reshape(20, 1))
    parts = split(whole, described(whole))
    everything = (part[torch.arange(len(part))][0] for part in (parts.train, parts.validation))
    train, validation = (set(x.flatten().tolist()) for x in everything)
    assert (len(train), len(validation)) == (14, 6)
    assert train | validation == set(range(20))
    for x, y in zip(parts.train.x.flatten().tolist(), parts.train.y.tolist(), strict=True):
        assert y == int(x) % 3
    other = split(whole, described(whole, seed=1))
    assert set(other.validation.x.flatten().tolist()) != validation


@pytest.mark.parametrize("validation", [0, 20, 21])
def test_something_must_be_left_to_train_and_to_validate_on(validation: int) -> None:
    whole = dataset(np.zeros((20, 1), dtype=np.float32))
    with pytest.raises(InputError, match=r"data\.validation: should be from 1 to 19"):
        split(whole, described(whole, validation=validation))


def test_a_fraction_of_the_training_examples_lies_within_a_larger_one() -> None:
    digits = load("digits")
    whole, half, tenth = (
        split(digits, described(digits, validation=200, fraction=fraction)) for fraction in (1.0, 0.5, 0.1)
    )
    assert [len(part.train) for part in (whole, half, tenth)] == [997, 498, 100]
    rows = [set(part.train.places(torch.arange(len(part.train))).tolist()) for part in (whole, half, tenth)]
    assert rows[2] < rows[1] < rows[0]
    assert torch.equal(half.validation.x, whole.validation.x)
    assert len(split(digits, described(digits, validation=200, fraction=1e-9)).train) == 1


def test_exactly_so_many_labels_are_drawn_anew_and_none_to_validate_or_test_by() -> None:
    digits = load("digits")
    before = digits.y_train.copy()
    clean, noisy = (split(digits, described(digits, validation=200, label_noise=noise)) for noise in (0.0, 0.4))
    everything = torch.arange(len(clean.train))
    (_, right), (_, drawn) = clean.train[everything], noisy.train[everything]
    wrong = int((right != drawn).sum())
    assert 0.8 * 0.4 * 997 < wrong <= round(0.4 * 997)  # one in ten is drawn as it was
    assert torch.equal(noisy.validation.y, clean.validation.y)
    assert torch.equal(noisy.test.y, clean.test.y)
    assert torch.equal(split(digits, described(digits, label_noise=0.4, validation=200)).train[everything][1], drawn)
    assert not torch.equal(
        split(digits, described(digits, label_noise=0.4, validation=200, seed=4)).train.y, noisy.train.y
    )
    assert (digits.y_train == before).all()
    all_random = split(digits, described(digits, label_noise=1.0, validation=200)).train[everything][1]
    assert 0.03 < (all_random == right).float().mean() < 0.2


def test_a_given_mean_is_shared_by_all_splits_and_a_computed_one_is_not() -> None:
    whole = dataset(np.random.default_rng(0).integers(0, 256, (20, 3, 4, 4), dtype=np.uint8))
    given = {"scale": "standard", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.1)}
    one, other = (split(whole, described(whole, seed=seed, **given)) for seed in (0, 1))
    assert one.train.x.data_ptr() == other.train.x.data_ptr()
    torch.testing.assert_close(one.black, torch.tensor([-2.5, -2.0, -3.0]))
    computed = split(whole, described(whole, scale="standard"))
    assert not torch.equal(computed.train.x, one.train.x)
    everything = torch.arange(len(computed.train))
    torch.testing.assert_close(computed.train[everything][0].mean((0, 2, 3)), torch.zeros(3), atol=1e-6, rtol=0)
    assert computed.black.shape == (3,)


@pytest.mark.parametrize(("shape", "black"), [((20, 3, 4, 4), [0.0, 0.0, 0.0]), ((20, 4, 4), 0.0)])
@pytest.mark.parametrize("scale", ["range", "unit-norm"])
def test_black_stays_zero_where_nothing_is_subtracted(shape: tuple[int, ...], black: object, scale: str) -> None:
    whole = dataset(np.ones(shape, np.uint8))
    assert split(whole, described(whole, scale=scale)).to(torch.device("cpu")).black.tolist() == black


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        (
            (20, 4),
            {"flip": True},
            'data.flip: needs images, (height, width) or (channels, height, width); "any" has inputs of shape (4,)',
        ),
        (
            (20, 4),
            {"crop": 1},
            'data.crop: needs images, (height, width) or (channels, height, width); "any" has inputs of shape (4,)',
        ),
        ((20, 4, 6), {"crop": 4}, "data.crop: should be less than the images' 4 x 6 pixels, not 4"),
    ],
)
def test_what_cannot_be_augmented_is_named(shape: tuple[int, ...], changes: dict[str, Any], message: str) -> None:
    whole = dataset(np.zeros(shape, np.uint8))
    with pytest.raises(InputError) as caught:
        split(whole, described(whole, **changes))
    assert str(caught.value) == message
