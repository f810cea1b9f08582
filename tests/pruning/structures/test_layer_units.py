"""Structures by name, and the units of layers that the graph does not couple."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import tombola
from tests.support.errors import raises_input_error
from tests.support.structures import assert_whole, n_of_m
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.structures import STRUCTURES, UnitStructure, parse_pattern, parse_structure


def test_structures_are_made_by_name() -> None:
    made = nn.Sequential(nn.Conv2d(1, 4, 2), nn.Linear(4, 4), nn.Linear(4, 2))
    assert set(STRUCTURES) == {"weights", "neurons", "channels", "heads", "width"}
    assert isinstance(parse_structure("neurons")(PrunableNetwork(made[1:])), UnitStructure)
    assert parse_structure("2:4")(PrunableNetwork(made)) == n_of_m(2, 4, made)
    tiles = parse_structure("blocks:2x3")(PrunableNetwork(made))
    assert isinstance(tiles, UnitStructure)
    (ids,) = tiles.units.ids["1.weight"]
    assert ids.tolist() == [[4, 4, 4, 5]] * 2 + [[6, 6, 6, 7]] * 2  # the first layer has 4
    assert parse_pattern("blocks:2x3") is None


@pytest.mark.parametrize(
    ("name", "fact"),
    [("neuron", '"neurons"'), ("blocks:0x4", '"blocks:4x4"'), ("4:4", "at most 3"), ("0:4", "at least 1")],
)
def test_invalid_names_are_refused_with_a_suggestion(name: str, fact: str) -> None:
    with raises_input_error("structure", f'"{name}"', fact):
        parse_structure(name)


class WithHead(nn.Module):
    """A recurrent layer of 3 inputs, and an output layer."""

    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn = rnn
        self.head = nn.Linear(self._features(torch.zeros(2, 5, 3)).shape[-1], 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self._features(x))
        return logits

    def _features(self, x: Tensor) -> Tensor:
        found = self.rnn(x[0] if isinstance(self.rnn, nn.RNNCellBase) else x)
        features: Tensor = found[0] if isinstance(found, tuple) else found
        return features


@pytest.mark.filterwarnings("ignore:LSTM with projections")
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
    network = WithHead(copy.deepcopy(made))
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


def test_gates_of_a_layer_that_is_left_out_in_part_stay_whole() -> None:
    network = nn.ModuleDict({"rnn": nn.LSTM(3, 4, num_layers=2), "head": nn.Linear(4, 2)})
    network = WithHead(network["rnn"])
    mask = tombola.prune(network, 0.5, structure="neurons", leave_out=["rnn.weight_hh_l0"])
    assert mask["rnn.weight_ih_l0"].all()
    assert sum(assert_whole([mask["rnn.weight_ih_l1"].view(4, 4, -1).transpose(0, 1)])) == 2


def test_neurons_of_a_bilinear_layer_are_its_outputs() -> None:
    class Bilinear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bilinear, self.head = nn.Bilinear(4, 4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(self.bilinear(x, x))
            return logits

    mask = tombola.prune(Bilinear(), 0.5, structure="neurons", example=torch.randn(2, 4))
    assert sum(assert_whole([mask["bilinear.weight"]])) == 3
