from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.pruning.structures.helpers import prune
from tombola.pruning.mask import Mask
from tombola.pruning.structures.pattern import NMPattern
from tombola.utils.errors import InputError


@settings(deadline=None, max_examples=100)
@given(st.data(), st.integers(2, 8), st.integers(1, 5), st.integers(1, 4), st.sampled_from(["layer", "global"]))
def test_exactly_n_of_each_m_stay_and_they_are_the_best(
    data: st.DataObject, m: int, rows: int, times: int, scope: str
) -> None:
    n = data.draw(st.integers(1, m - 1))
    made = nn.Sequential(nn.Linear(m * times, rows), nn.Conv2d(2 * m, rows, times, groups=2 - rows % 2))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    scores = {name: torch.randint(-3, 3, w.shape, generator=generator).float() for name, w in Mask.full(made).items()}
    mask = prune(NMPattern(n, m, made), Mask.full(made), 1 - n / m, scores, scope=scope)
    for name, kept in mask.items():
        in_rows = (each.movedim(1, -1).reshape(-1, m).tolist() for each in (kept, scores[name]))
        for stay, worth in zip(*in_rows, strict=True):
            best = sorted(range(m), key=lambda place: (worth[place], place))[m - n :]
            assert [place for place in range(m) if stay[place]] == sorted(best)


def test_of_a_convolution_m_consecutive_input_channels_compete_at_each_place_of_the_kernel() -> None:
    made = nn.Conv2d(8, 6, 3)
    mask = prune(NMPattern(2, 4, made), Mask.full(made), 0.5)["weight"]
    for place in mask.permute(2, 3, 0, 1).reshape(9, 6, 8):
        assert (place.view(6, 2, 4).sum(2) == 2).all()
    grouped = nn.Sequential(nn.Conv2d(4, 6, 2, groups=2))
    with pytest.raises(InputError, match="needs a multiple of 4 input channels, 0 has 2;"):
        prune(NMPattern(2, 4, grouped), Mask.full(grouped), 0.5)


def test_scores_that_are_not_numbers_are_not_the_best() -> None:
    made = nn.Linear(4, 2)
    scores = {"weight": torch.tensor([[1.0, 2, torch.nan, 4], [5, 6, 7, 8]])}
    with pytest.raises(InputError, match="scores of weight are not all numbers"):
        prune(NMPattern(2, 4, made), Mask.full(made), 0.5, scores)
    before = Mask({"weight": ~scores["weight"].isnan()})  # of weights that are gone nothing is asked
    kept = NMPattern(2, 4, made).keep_best(scores, before, {("weight",): 4})["weight"]
    assert kept.tolist() == [[False, True, False, True], [False, False, True, True]]


def test_weights_pruned_before_are_not_among_the_best() -> None:
    made = nn.Linear(4, 2)
    before = Mask({"weight": torch.tensor([[False, True, True, True], [False, False, False, True]])})
    mask = NMPattern(2, 4, made).keep_best({"weight": torch.tensor([[9.0, 1, 2, 3]] * 2)}, before, {("weight",): 3})
    assert mask["weight"].tolist() == [[False, False, True, True], [False, False, False, True]]


def test_on_the_way_any_weight_may_go_that_is_not_among_the_best_of_its_m() -> None:
    made = nn.Linear(4, 2)
    scores = {"weight": torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])}
    mask = NMPattern(2, 4, made).keep_best(scores, Mask.full(made), {("weight",): 5})
    assert mask["weight"].tolist() == [[False, False, True, True], [False, True, True, True]]


def test_layers_that_m_does_not_divide_are_refused() -> None:
    made = nn.Sequential(nn.Linear(6, 4), nn.Conv2d(1, 4, 3), nn.ConvTranspose2d(4, 4, 2))
    full = Mask.full(made)
    with pytest.raises(
        InputError, match=r'^structure: 2:4 needs a multiple of 4 inputs, 0 has 6; leave_out = \["0"\]'
    ):
        prune(NMPattern(2, 4, made), full, 0.5)
    with pytest.raises(InputError, match="needs a multiple of 4 input channels, 1 has 1"):
        prune(NMPattern(2, 4, made), full, 0.5, leave_out=["0"])
    with pytest.raises(InputError, match="transposed 2 has none in a row"):
        prune(NMPattern(2, 4, made), full, 0.5, leave_out=["0", "1"])


def test_less_than_n_of_m_is_refused() -> None:
    made = nn.Linear(8, 4)
    with pytest.raises(InputError, match=r"^structure: 2:4 leaves 0.5 of the weights of every layer, and no less$"):
        prune(NMPattern(2, 4, made), Mask.full(made), 0.6)
