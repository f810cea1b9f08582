"""N of m weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tombola
from tests.support.errors import raises_input_error
from tests.support.prunable_networks import Experts, GraphConvolution
from tests.support.structures import conv1d, n_of_m, prune
from tombola.pruning.mask import Mask


@settings(deadline=None, max_examples=40)
@given(st.data(), st.integers(2, 8), st.integers(1, 5), st.integers(1, 4), st.sampled_from(["layer", "global"]))
def test_the_n_best_of_every_m_are_kept(data: st.DataObject, m: int, rows: int, times: int, scope: str) -> None:
    n = data.draw(st.integers(1, m - 1))
    made = nn.Sequential(nn.Linear(m * times, rows), nn.Conv2d(2 * m, rows, times, groups=2 - rows % 2))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    scores = {name: torch.randint(-3, 3, w.shape, generator=generator).float() for name, w in Mask.full(made).items()}
    mask = prune(n_of_m(n, m, made), Mask.full(made), 1 - n / m, scores, scope=scope)
    for name, kept in mask.items():
        in_rows = (each.movedim(1, -1).reshape(-1, m).tolist() for each in (kept, scores[name]))
        for stay, worth in zip(*in_rows, strict=True):
            best = sorted(range(m), key=lambda place: (worth[place], place))[m - n :]
            assert [place for place in range(m) if stay[place]] == sorted(best)


def test_input_channels_of_a_convolution_compete_at_each_kernel_position() -> None:
    made = nn.Conv2d(8, 6, 3)
    mask = prune(n_of_m(2, 4, made), Mask.full(made), 0.5)["weight"]
    for place in mask.permute(2, 3, 0, 1).reshape(9, 6, 8):
        assert (place.view(6, 2, 4).sum(2) == 2).all()
    grouped = nn.Sequential(nn.Conv2d(4, 6, 2, groups=2))
    with raises_input_error("multiple of 4 input channels, 0 has 2"):
        prune(n_of_m(2, 4, grouped), Mask.full(grouped), 0.5)


def test_pruned_weights_are_not_among_the_n_best_and_their_scores_may_be_nan() -> None:
    made = nn.Linear(4, 2)
    scores = {"weight": torch.tensor([[1.0, 2, torch.nan, 4], [5, 6, 7, 8]])}
    with raises_input_error("weight are NaN"):
        prune(n_of_m(2, 4, made), Mask.full(made), 0.5, scores)
    before = Mask({"weight": ~scores["weight"].isnan()})
    kept = n_of_m(2, 4, made).keep_best(scores, before, {("weight",): 4})["weight"]
    assert kept.tolist() == [[False, True, False, True], [False, False, True, True]]
    before = Mask({"weight": torch.tensor([[False, True, True, True], [False, False, False, True]])})
    mask = n_of_m(2, 4, made).keep_best({"weight": torch.tensor([[9.0, 1, 2, 3]] * 2)}, before, {("weight",): 3})
    assert mask["weight"].tolist() == [[False, False, True, True], [False, False, False, True]]


def test_intermediate_counts_prune_the_worst_outside_the_n_best() -> None:
    made = nn.Linear(4, 2)
    scores = {"weight": torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])}
    mask = n_of_m(2, 4, made).keep_best(scores, Mask.full(made), {("weight",): 5})
    assert mask["weight"].tolist() == [[False, False, True, True], [False, True, True, True]]


def test_layers_with_inputs_that_are_no_multiple_of_m_are_refused() -> None:
    made = nn.Sequential(nn.Linear(6, 4), nn.ConvTranspose2d(4, 4, 2))
    with raises_input_error("structure: 2:4", "multiple of 4 inputs, 0 has 6", '["0"]'):
        prune(n_of_m(2, 4, made), Mask.full(made), 0.5)
    with raises_input_error("transposed", '["1"]'):
        prune(n_of_m(2, 4, made), Mask.full(made), 0.5, leave_out=["0"])


def test_less_than_n_of_m_is_refused() -> None:
    made = nn.Linear(8, 4)
    with raises_input_error("structure: 2:4", "0.5 "):
        prune(n_of_m(2, 4, made), Mask.full(made), 0.6)


def test_n_of_m_of_conv1d_is_along_its_rows() -> None:
    made = conv1d(8, 6)
    mask = tombola.prune(made, structure="2:4")["weight"]
    assert (mask.t().reshape(6, 2, 4).sum(2) == 2).all()
    with raises_input_error("multiple of 4 inputs", "has 6"):
        tombola.prune(conv1d(6, 8), structure="2:4")


def test_n_of_m_of_recurrent_layers_and_attention_is_along_the_input() -> None:
    network = nn.ModuleDict({"rnn": nn.GRU(4, 8), "attention": nn.MultiheadAttention(8, 2)})
    for kept in tombola.prune(network, structure="1:4").values():
        assert (kept.view(len(kept), -1, 4).sum(2) == 1).all()


@pytest.mark.parametrize(
    ("made", "include", "facts"),
    [
        (nn.Bilinear(4, 4, 4), [], ["weight", "bilinear"]),
        (Experts(), [], ["experts", "leave_out"]),
        (nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 4)), ["0"], ["0", "embedding"]),
        (GraphConvolution(), ["second"], ["second", "other"]),
    ],
)
def test_n_of_m_is_refused_where_the_axis_of_inputs_is_unknown(
    made: nn.Module, include: list[str], facts: list[str]
) -> None:
    with raises_input_error("structure: 2:4 does not support", *facts):
        tombola.prune(made, structure="2:4", include=include)
