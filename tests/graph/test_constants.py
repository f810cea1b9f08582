from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.graph.test_recording import Function
from tombola.graph.constants import Constants
from tombola.graph.coupling import coupling


def returned(network: nn.Module, example: Tensor, axis: int = 1) -> Any:
    """The constants in what a network returns."""
    network = network.double().eval()
    units = coupling(network, example.double())
    tensors = dict((*network.named_parameters(), *network.named_buffers()))
    return Constants(units, tensors).along(units.graph.outputs[0], axis)


def test_a_neuron_without_weights_is_constant() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))
    with torch.no_grad():
        network[0].weight[1] = 0
        network[3].weight[1] = torch.tensor([0, 1.0, 0, 0])
    expected = network.double().eval()(torch.zeros(1, 3).double())
    found = returned(network, torch.ones(2, 3))
    assert np.isnan(found[0])
    assert abs(found[1] - expected[0, 1].item()) < 1e-12


def test_next_to_padding_only_zero_stays_constant() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 3, padding=1, bias=False))
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].bias.fill_(0.5)
    assert np.isnan(returned(network, torch.ones(2, 1, 4, 4))).all()
    with torch.no_grad():
        network[0].bias.zero_()
    assert returned(network, torch.ones(2, 1, 4, 4)).tolist() == [0]


def test_a_gate_of_zero_makes_zero() -> None:
    network = Function(lambda n, x: n.a(x) * n.scale, a=nn.Linear(3, 2))
    network.scale = nn.Parameter(torch.tensor([0.0, 1.0]))
    found = returned(network, torch.ones(2, 3))
    assert found[0] == 0
    assert np.isnan(found[1])


def test_entries_of_embeddings_that_are_the_same_in_all_rows_are_constant() -> None:
    network = nn.Embedding(5, 3)
    with torch.no_grad():
        network.weight[:, 2] = 0.25
    units = coupling(network.double(), torch.tensor([[1, 2], [3, 4]]))
    found = Constants(units, dict(network.named_parameters())).along(units.graph.outputs[0], 2)
    assert np.isnan(found[:2]).all()
    assert found[2] == 0.25
