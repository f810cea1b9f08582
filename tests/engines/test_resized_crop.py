"""Random resized crops: which parts are drawn, and what becomes of them."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from tombola.engines.resized_crop import AREA, BLOCK, RATIO, ResizedCropDraws, resized_crop


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 5))
def test_parts_are_inside_the_image(height: int, width: int, seed: int) -> None:
    choices = ResizedCropDraws(seed, 16, True, (height, width)).choices(0, 3).flatten(0, 1)
    flipped, top, left, rows, columns = choices.unbind(1)
    assert set(flipped.tolist()) <= {0, 1}
    for first, size, whole in ((top, rows, height), (left, columns, width)):
        assert ((first >= 0) & (size >= 1) & (first + size <= whole)).all()


def test_parts_have_the_areas_and_ratios_that_were_asked_for() -> None:
    _, top, left, rows, columns = (
        ResizedCropDraws(0, 500, False, (200, 200)).choices(0, BLOCK).flatten(0, 1).unbind(1)
    )
    area, ratio = rows * columns / 200**2, columns / rows
    assert AREA[0] - 0.01 <= area.min() < 0.1
    assert 0.95 < area.max() <= AREA[1]
    assert RATIO[0] - 0.02 <= ratio.min() < 0.8
    assert 1.25 < ratio.max() <= RATIO[1] + 0.02
    assert top.unique().numel() > 100
    assert left.unique().numel() > 100


def test_any_range_of_iterations_gives_the_same_choices() -> None:
    whole = ResizedCropDraws(1, 4, True, (9, 12)).choices(0, 2 * BLOCK + 3)
    assert torch.equal(ResizedCropDraws(1, 4, True, (9, 12)).choices(BLOCK - 2, 9), whole[BLOCK - 2 : BLOCK + 7])


def test_a_part_is_resized_and_flipped() -> None:
    x = torch.rand(3, 2, 10, 12, generator=torch.Generator().manual_seed(0))
    choices = torch.tensor([[0, 2, 3, 5, 6], [1, 0, 0, 10, 12], [0, 4, 6, 6, 6]], dtype=torch.float32)
    found = resized_crop(x, choices, 6)
    assert found.shape == (3, 2, 6, 6)
    whole = functional.interpolate(x[1:2], (6, 6), mode="bilinear", align_corners=False)[0].flip(-1)
    torch.testing.assert_close(found[1], whole)
    torch.testing.assert_close(found[2], x[2, :, 4:10, 6:12])
    grey = resized_crop(x[:, 0], choices, 6)
    torch.testing.assert_close(grey, found[:, 0])
    inner = functional.interpolate(x[:1, :, 2:7, 3:9], (6, 6), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(found[0][:, 1:-1, 1:-1], inner[:, 1:-1, 1:-1])
