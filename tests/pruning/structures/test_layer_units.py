"""Neurons and channels."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tombola
from tests.support.errors import raises_input_error
from tests.support.structures import assert_whole, conv1d, n_of_m, network, prune
from tombola.pruning.mask import Mask
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.structures import STRUCTURES, UnitStructure, parse_pattern, parse_structure
from tombola.pruning.structures.layer_units import channels, neurons


def test_structures_are_made_by_name() -> None:
    made = nn.Sequential(nn.Conv2d(1, 4, 2), nn.Linear(4, 4), nn.Linear(4, 2))
    assert set(STRUCTURES) == {"weights", "neurons", "channels", "heads"}
    assert isinstance(parse_structure("neurons")(PrunableNetwork(made)), UnitStructure)
    assert parse_structure("2:4")(PrunableNetwork(made)) == n_of_m(2, 4, made)
    tiles = parse_structure("blocks:2x3")(PrunableNetwork(made))
    assert isinstance(tiles, UnitStructure)
    assert tiles.ids["1.weight"].tolist() == [[4, 4, 4, 5]] * 2 + [[6, 6, 6, 7]] * 2  # the first layer has 4
    assert parse_pattern("blocks:2x3") is None


@pytest.mark.parametrize(
    ("name", "fact"),
    [("neuron", '"neurons"'), ("blocks:0x4", '"blocks:4x4"'), ("4:4", "at most 3"), ("0:4", "at least 1")],
)
def test_invalid_names_are_refused_with_a_suggestion(name: str, fact: str) -> None:
    with raises_input_error("structure", f'"{name}"', fact):
        parse_structure(name)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(1, 9), min_size=3, max_size=5),
    st.lists(st.floats(0.01, 0.9), min_size=1, max_size=3),
    st.sampled_from(["layer", "global"]),
)
def test_neurons_are_pruned_whole_and_an_exact_number_of_them(
    widths: list[int], rates: list[float], scope: str
) -> None:
    made = network(*widths)
    mask = Mask.full(made)
    *hidden, output = mask
    for rate in rates:
        before, mask = mask, prune(neurons(PrunableNetwork(made)), mask, rate, scope=scope)
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


def test_a_neurons_score_is_the_mean_of_its_weights_and_the_first_of_equals_is_pruned() -> None:
    made, full = neurons(PrunableNetwork(network(2, 4, 1))), Mask.full(network(2, 4, 1))

    def kept(*scores: list[float], rate: float = 0.5) -> list[int]:
        mask = prune(made, full, rate, {"0.weight": torch.tensor(scores), "1.weight": torch.ones(1, 4)})
        return mask["0.weight"].any(1).nonzero().flatten().tolist()

    scores = [[0.0, 4.0], [1.0, 1.0], [2.0, 0.0], [9.0, -9.0]]
    assert kept(*scores) == [0, 2]
    assert kept(*scores, rate=0.75) == [0]
    assert kept(*[[1.0, 1.0]] * 4) == [2, 3]


def test_weights_pruned_before_do_not_count_in_the_mean_and_stay_pruned() -> None:
    mask = Mask({"0.weight": torch.tensor([[True, False], [True, True]]), "1.weight": torch.ones(1, 2).bool()})
    scores = {"0.weight": torch.tensor([[3.0, -100.0], [2.0, 3.0]]), "1.weight": torch.ones(1, 2)}
    assert prune(neurons(PrunableNetwork(network(2, 2, 1))), mask, 0.5, scores)["0.weight"].tolist() == [
        [True, False],
        [False, False],
    ]


def test_channels_are_filters_of_convolutions_only() -> None:
    made = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3, groups=2), nn.Linear(6, 5), nn.Linear(5, 2))
    mask = prune(channels(PrunableNetwork(made)), Mask.full(made), 0.5, scope="global")
    filters = [mask[name].flatten(1) for name in ("0.weight", "1.weight")]
    assert all(torch.equal(each.any(1), each.all(1)) for each in filters)
    assert sum(int(each.any(1).sum()) for each in filters) == 7
    assert mask["2.weight"].all()
    assert mask["3.weight"].all()


def test_channels_of_transposed_convolutions_are_counted_over_their_groups() -> None:
    made = nn.Sequential(nn.ConvTranspose1d(4, 6, 3, groups=2), nn.Conv1d(6, 1, 1))
    mask = prune(channels(PrunableNetwork(made)), Mask.full(made), 0.5)["0.weight"]  # [4, 3, 3]
    outputs = torch.cat([mask[:2].transpose(0, 1), mask[2:].transpose(0, 1)]).flatten(1)
    assert torch.equal(outputs.any(1), outputs.all(1))
    assert int(outputs.any(1).sum()) == 3


def test_the_groups_of_a_scope_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With many rounds it would take most of the time."""
    made = network(9, 8, 7, 2)
    units, mask = neurons(PrunableNetwork(made)), Mask.full(made)
    prune(units, mask, 0.5, scope="global")
    monkeypatch.setattr(torch, "unique", None)
    assert prune(units, prune(units, mask, 0.5, scope="global"), 0.5, scope="layer") <= mask


def test_networks_without_such_units_are_refused() -> None:
    made = network(3, 4, 2)
    with raises_input_error("structure:", "channels"):
        prune(channels(PrunableNetwork(made)), Mask.full(made), 0.5)
    with raises_input_error("structure:", "neurons"):
        prune(neurons(PrunableNetwork(nn.Linear(3, 2))), Mask.full(nn.Linear(3, 2)), 0.5)
    with raises_input_error('scope: "erk"', "neurons"):
        prune(neurons(PrunableNetwork(made)), Mask.full(made), 0.5, scope="erk")


def test_nan_scores_of_units_are_refused() -> None:
    made = network(2, 2, 1)
    scores = {"0.weight": torch.full((2, 2), torch.nan), "1.weight": torch.ones(1, 2)}
    with raises_input_error("0.weight are NaN"):
        prune(neurons(PrunableNetwork(made)), Mask.full(made), 0.5, scores)


@pytest.mark.parametrize(
    ("made", "gates"),
    [
        (nn.LSTM(3, 6, num_layers=2, bidirectional=True), 4),
        (nn.LSTM(3, 6, proj_size=4), 4),
        (nn.GRU(3, 6, num_layers=2), 3),
        (nn.RNN(3, 6, bidirectional=True), 1),
        (nn.LSTMCell(3, 6), 4),
        (nn.GRUCell(3, 6), 3),
    ],
)
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_hidden_unit_has_its_rows_of_all_gates(made: nn.Module, gates: int, scope: str) -> None:
    network = nn.ModuleDict({"rnn": copy.deepcopy(made), "head": nn.Linear(6, 2)})
    mask = tombola.prune(network, 1 / 3, structure="neurons", scope=scope, outputs=["head"], score="random")
    units = []
    for name, kept in mask.items():
        if "weight_ih" in name:
            rows = [w.view(gates, 6, -1).transpose(0, 1) for w in (kept, mask[name.replace("_ih", "_hh")])]
            units.append(torch.cat([part.flatten(1) for part in rows], 1))
        elif "weight_hr" in name:  # [projected, hidden]: has its own neurons
            units.append(kept)
    left = [sum(assert_whole([each])) for each in units]
    if scope == "layer":
        assert left == [len(each) - round(2 / 3 * len(each)) for each in units]
    else:
        count = sum(map(len, units))
        assert sum(left) == count - round(2 / 3 * count)
    assert mask["head.weight"].all()


def test_gates_cannot_be_pruned_in_part() -> None:
    network = nn.ModuleDict({"rnn": nn.LSTM(3, 4), "head": nn.Linear(4, 2)})
    with raises_input_error("rnn.weight_hh_l0", "shares its neurons"):
        tombola.prune(network, 0.5, structure="neurons", outputs=["head"], leave_out=["rnn.weight_hh_l0"])


def test_neurons_of_conv1d_are_columns() -> None:
    network = nn.Sequential(conv1d(5, 8), nn.Linear(8, 2))
    mask = tombola.prune(network, 0.25, structure="neurons")
    assert sum(assert_whole([mask["0.weight"].t()])) == 2
    assert mask.counts == {"0.weight": 10, "1.weight": 16}


def test_neurons_of_a_bilinear_layer_are_its_outputs() -> None:
    network = nn.ModuleDict({"bilinear": nn.Bilinear(3, 4, 6), "head": nn.Linear(6, 2)})
    mask = tombola.prune(network, 0.5, structure="neurons", outputs=["head"])
    assert sum(assert_whole([mask["bilinear.weight"]])) == 3


def test_query_key_and_value_of_fused_attention_have_neurons_of_their_own() -> None:
    network = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2), "head": nn.Linear(8, 2)})
    mask = tombola.prune(network, {"attention.query": 0.25}, structure="neurons", outputs=["head"])
    assert mask.counts == {f"attention.{n}.weight": 64 for n in ("key", "value", "out_proj")} | {
        "attention.query.weight": 16,
        "head.weight": 16,
    }
    assert sum(assert_whole([mask.layers["attention.query.weight"]])) == 2
