from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.pruning.structures.helpers import network, prune
from tombola.pruning.mask import Mask
from tombola.pruning.structures.rows import blocks, channels, neurons
from tombola.utils.errors import InputError


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(1, 9), min_size=3, max_size=5),
    st.lists(st.floats(0, 0.9), min_size=1, max_size=3),
    st.sampled_from(["layer", "global"]),
)
def test_neurons_live_or_die_whole_and_exactly_as_many_as_said_go(
    widths: list[int], rates: list[float], scope: str
) -> None:
    made = network(*widths)
    mask = Mask.full(made)
    *hidden, output = mask
    for rate in rates:
        before, mask = mask, prune(neurons(made), mask, rate, scope=scope)
        assert mask <= before
        rows = {name: (int(before[name].any(1).sum()), int(mask[name].any(1).sum())) for name in hidden}
        for name in hidden:
            assert torch.equal(mask[name].any(1), mask[name].all(1))
        if scope == "layer":
            assert all(left == had - round(rate * had) for had, left in rows.values())
        else:
            had, left = (sum(pair) for pair in zip(*rows.values(), strict=True))
            assert left == had - round(rate * had)
        assert mask[output].all()


def test_a_neuron_is_worth_the_mean_of_its_weights_and_the_first_of_equals_goes() -> None:
    mask = Mask.full(network(2, 4, 1))
    scores = {
        "0.weight": torch.tensor([[0.0, 4.0], [1.0, 1.0], [2.0, 0.0], [9.0, -9.0]]),
        "1.weight": torch.ones(1, 4),
    }
    assert prune(neurons(network(2, 4, 1)), mask, 0.5, scores)["0.weight"].any(1).tolist() == [
        True,
        False,
        True,
        False,
    ]
    assert prune(neurons(network(2, 4, 1)), mask, 0.75, scores)["0.weight"].any(1).tolist() == [True, *[False] * 3]
    equal = {name: torch.ones_like(score) for name, score in scores.items()}
    assert prune(neurons(network(2, 4, 1)), mask, 0.5, equal)["0.weight"].any(1).tolist() == [
        False,
        False,
        True,
        True,
    ]


def test_weights_pruned_before_do_not_count_in_the_mean_and_stay_pruned() -> None:
    mask = Mask({"0.weight": torch.tensor([[True, False], [True, True]]), "1.weight": torch.ones(1, 2).bool()})
    scores = {"0.weight": torch.tensor([[3.0, -100.0], [2.0, 3.0]]), "1.weight": torch.ones(1, 2)}
    assert prune(neurons(network(2, 2, 1)), mask, 0.5, scores)["0.weight"].tolist() == [[True, False], [False, False]]


def test_channels_are_the_filters_of_convolutions_and_nothing_else() -> None:
    made = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3, groups=2), nn.Flatten(), nn.Linear(6, 5), nn.Linear(5, 2)
    )
    mask = prune(channels(made), Mask.full(made), 0.5, scope="global")
    filters = [mask[name].flatten(1) for name in ("0.weight", "1.weight")]
    assert all(torch.equal(each.any(1), each.all(1)) for each in filters)
    assert sum(int(each.any(1).sum()) for each in filters) == 7
    assert mask["3.weight"].all()
    assert mask["4.weight"].all()


def test_channels_of_transposed_convolutions_are_counted_over_their_groups() -> None:
    made = nn.Sequential(nn.ConvTranspose1d(4, 6, 3, groups=2), nn.Conv1d(6, 1, 1))
    mask = prune(channels(made), Mask.full(made), 0.5)["0.weight"]  # [4, 3, 3]
    outputs = torch.cat([mask[:2].transpose(0, 1), mask[2:].transpose(0, 1)]).flatten(1)
    assert torch.equal(outputs.any(1), outputs.all(1))
    assert int(outputs.any(1).sum()) == 3


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.floats(0, 0.9))
def test_tiles_live_or_die_whole_also_at_the_edges(
    rows: int, columns: int, height: int, width: int, rate: float
) -> None:
    made = nn.Linear(columns, rows)
    mask = prune(blocks(made, height, width), Mask.full(made), rate)["weight"]
    tiles = [tile for band in mask.split(height, 0) for tile in band.split(width, 1)]
    assert all(tile.all() or not tile.any() for tile in tiles)
    assert sum(bool(tile.any()) for tile in tiles) == len(tiles) - round(rate * len(tiles))


def test_tiles_of_convolutions_are_those_of_their_matrix() -> None:
    made = nn.Conv2d(2, 4, 2)
    mask = prune(blocks(made, 2, 4), Mask.full(made), 0.5)["weight"].view(4, 8)
    assert all(tile.all() or not tile.any() for band in mask.split(2, 0) for tile in band.split(4, 1))
    assert int(mask.sum()) == 16


@pytest.mark.parametrize("groups", [1, 2])
def test_tiles_of_transposed_convolutions_are_of_outputs_by_inputs_too(groups: int) -> None:
    made = nn.ConvTranspose1d(4, 8, 2, groups=groups)  # [4, 8 / groups, 2]
    mask = prune(blocks(made, 2, 4), Mask.full(made), 0.5)["weight"]
    matrix = torch.cat([part.transpose(0, 1) for part in mask.chunk(groups)]).flatten(1)  # [8, 8 / groups]
    tiles = [tile for band in matrix.split(2, 0) for tile in band.split(4, 1)]
    assert all(tile.all() or not tile.any() for tile in tiles)
    assert sum(bool(tile.any()) for tile in tiles) == len(tiles) // 2


def test_which_weights_make_a_unit_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In rounds it would take longer than all else."""
    made = network(9, 8, 7, 2)
    units, mask = neurons(made), Mask.full(made)
    prune(units, mask, 0.5, scope="global")
    monkeypatch.setattr(torch, "unique", None)
    assert prune(units, prune(units, mask, 0.5, scope="global"), 0.5, scope="layer") <= mask


def test_networks_without_such_units_are_refused_in_one_line() -> None:
    made = network(3, 4, 2)
    with pytest.raises(InputError, match=r"^structure: no layer that is pruned has channels$"):
        prune(channels(made), Mask.full(made), 0.5)
    with pytest.raises(InputError, match=r"^structure: no layer that is pruned has neurons$"):
        prune(neurons(nn.Linear(3, 2)), Mask.full(nn.Linear(3, 2)), 0.5)
    with pytest.raises(
        InputError, match='"erk" says how many weights a layer keeps; with neurons use layer or global'
    ):
        prune(neurons(made), Mask.full(made), 0.5, scope="erk")


def test_scores_that_are_not_numbers_are_refused() -> None:
    made = network(2, 2, 1)
    scores = {"0.weight": torch.full((2, 2), torch.nan), "1.weight": torch.ones(1, 2)}
    with pytest.raises(InputError, match=r"scores of 0\.weight are not all numbers"):
        prune(neurons(made), Mask.full(made), 0.5, scores)
