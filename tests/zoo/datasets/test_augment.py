from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola.zoo.datasets.augment import BLOCK, augment, draws
from tombola.zoo.datasets.dataset import Array


def one_by_one(x: Array, choices: Array, black: Array, crop: int) -> Array:
    """The same, an image at a time: pad with black, cut, turn."""
    height, width = x.shape[-2:]
    result = []
    for image, (turned, top, left), ground in zip(x, choices, black, strict=True):
        channels = image.reshape(-1, height, width)
        padded = np.stack(
            [
                np.pad(channel, crop, constant_values=value)
                for channel, value in zip(channels, np.atleast_1d(ground), strict=True)
            ]
        )
        cut = padded[:, top : top + height, left : left + width]
        result.append((cut[:, :, ::-1] if turned else cut).reshape(image.shape))
    return np.stack(result)


@settings(deadline=None, max_examples=60)
@given(
    images=st.integers(1, 6),
    channels=st.sampled_from([None, 1, 3]),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    crop=st.integers(0, 9),
    flip=st.booleans(),
    seed=st.integers(0, 9),
)
def test_images_are_padded_cut_and_turned_as_one_would_one_by_one(
    images: int, channels: int | None, height: int, width: int, crop: int, flip: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    per_image = () if channels is None else (channels,)
    x = generator.random((images, *per_image, height, width), dtype=np.float32)
    choices = draws(seed, images, 5, 1, flip, crop)[0]
    alike = generator.random(per_image, dtype=np.float32)
    differing = generator.random((images, *per_image), dtype=np.float32)
    for black in (alike, differing):
        result = augment(torch.from_numpy(x), choices, torch.from_numpy(np.array(black)), crop)
        expected = one_by_one(x, choices.numpy(), np.broadcast_to(black, (images, *per_image)), crop)
        np.testing.assert_array_equal(result.numpy(), expected)


def test_without_flip_and_crop_images_stay_as_they_are() -> None:
    x = torch.rand(4, 3, 5, 6)
    assert torch.equal(augment(x, draws(0, 4, 0, 1, False, 0)[0], torch.ones(3), 0), x)


@pytest.mark.parametrize(("first", "count"), [(0, 1), (99, 2), (37, 250), (200, 100), (250, 0)])
def test_any_stretch_can_be_asked_for_by_itself(first: int, count: int) -> None:
    whole = draws(3, 8, 0, 400, True, 4)
    assert torch.equal(draws(3, 8, first, count, True, 4), whole[first : first + count])


def test_every_choice_is_as_likely_as_the_others() -> None:
    choices = draws(0, 100, 0, 10 * BLOCK, True, 4)
    assert (choices.shape, choices.dtype) == ((1000, 100, 3), torch.int64)
    assert choices[:, :, 0].sum() == 50_078  # of 100,000: a coin's deviation is 158
    for axis in (1, 2):
        counts = choices[:, :, axis].flatten().bincount()
        assert len(counts) == 9
        assert (counts - 100_000 / 9).abs().max() < 4 * 100  # four deviations
    assert len({choices[i].numpy().tobytes() for i in range(1000)}) == 1000


def test_other_seeds_draw_otherwise_and_other_crops_turn_the_same_images() -> None:
    here = draws(0, 50, 0, 10, True, 4)
    assert not torch.equal(here, draws(1, 50, 0, 10, True, 4))
    assert torch.equal(here[:, :, 0], draws(0, 50, 0, 10, True, 2)[:, :, 0])
    assert not draws(0, 50, 0, 10, False, 4)[:, :, 0].any()
    assert torch.equal(here[:, :, 1:], draws(0, 50, 0, 10, False, 4)[:, :, 1:])
    assert not draws(0, 50, 0, 10, True, 0)[:, :, 1:].any()
