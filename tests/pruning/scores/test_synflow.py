from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tests.pruning.scores.helpers import convolutional, derivative, examples, of_network
from tombola.pruning.scores.synflow import synflow
from tombola.utils.errors import InputError


def test_of_linear_layers_it_is_the_flow_through_each_weight() -> None:
    """Equation 4 of the paper: what leaves by it x its magnitude x what comes to it."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 5, bias=False), nn.ReLU(), nn.Linear(5, 4, bias=False)).double()
    first, second = network[0].weight.detach().abs(), network[2].weight.detach().abs()
    found = synflow(of_network(network, [(torch.randn(7, 3), None)]))
    torch.testing.assert_close(found["0.weight"], second.sum(0).unsqueeze(1) * first)
    torch.testing.assert_close(found["2.weight"], second * first.sum(1))
    assert float(found["0.weight"].sum()) == pytest.approx(float(found["2.weight"].sum()))  # the layers' flow is one


def test_of_convolutions_with_biases_it_is_the_derivative_of_the_flow() -> None:
    network = convolutional()
    for index in (1, 3):
        network[index] = nn.ReLU()
    found = synflow(of_network(network, examples((2, 4, 4))))
    positive = copy.deepcopy(network)
    for parameter in positive.parameters():
        parameter.detach().abs_()
    ones = torch.ones(1, 2, 4, 4, dtype=torch.float64)
    for name, parameter in positive.named_parameters():
        if name in found:
            flow = derivative(lambda: float(positive(ones).sum().detach()), parameter.detach())
            torch.testing.assert_close(found[name], flow * parameter.detach(), rtol=1e-5, atol=1e-6)


def test_only_the_shape_of_an_example_is_looked_at() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    before = synflow(of_network(network, [(torch.zeros(1, 2, 4, 4), None)]))
    network[1].running_mean.fill_(100.0)  # as a training would
    network[1].running_var.fill_(7.0)
    after = synflow(of_network(network, [(torch.randn(9, 2, 4, 4), None)]))
    for name, scores in before.items():
        assert scores.dtype == torch.float64
        assert torch.equal(scores, after[name])


def test_batch_norm_without_running_statistics_is_its_affine_part_too() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    without = copy.deepcopy(network)
    without[1] = nn.BatchNorm1d(4, track_running_stats=False)
    expected, found = (synflow(of_network(each, [(torch.randn(5, 3), None)])) for each in (network, without))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_what_is_missing_is_said() -> None:
    network = nn.Linear(3, 2)
    with pytest.raises(InputError, match="looks at training examples"):
        synflow(of_network(network))
    with pytest.raises(InputError, match=r"should be batches \(x, y\), not dict"):
        synflow(of_network(network, [{"x": torch.ones(1, 3)}]))
    with pytest.raises(InputError, match="a network that gives a tensor, not tuple"):
        synflow(of_network(nn.LSTM(3, 2), [(torch.ones(1, 3), None)]))
