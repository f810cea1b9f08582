"""Scores that differentiate the network."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian, jacobian
from torch.func import functional_call
from torch.nn import functional

from tests.support.errors import raises_input_error
from tests.support.scores import NETWORKS, convolutional, derivative, examples, linear, of_network
from tombola.pruning.scores.gradients import fisher, grasp, snip, taylor
from tombola.pruning.scores.growth import gradient
from tombola.pruning.scores.inputs import cross_entropy
from tombola.pruning.scores.synflow import synflow

each_network = pytest.mark.parametrize("kind", NETWORKS)
each_score = pytest.mark.parametrize("score", [snip, taylor, fisher, grasp])


def weights_of(network: nn.Module, names: Any) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in network.named_parameters() if name in names}


@each_network
def test_snip_is_the_sensitivity_of_the_loss_to_each_connection(kind: str) -> None:
    """The derivative by a factor in front of the weight, which is that by the weight times the weight."""
    make, shape = NETWORKS[kind]
    network, batches = make(), examples(shape)

    def loss() -> float:
        with torch.no_grad():
            return sum(float(cross_entropy(network, batch)) for batch in batches) / len(batches)

    found = snip(of_network(network, batches))
    for name, weight in weights_of(network, found).items():
        torch.testing.assert_close(found[name], (derivative(loss, weight) * weight).abs(), rtol=1e-5, atol=1e-8)


@each_network
@pytest.mark.parametrize("score", [taylor, fisher])
def test_taylor_is_the_mean_square_over_batches_and_fisher_over_single_examples(kind: str, score: Any) -> None:
    make, shape = NETWORKS[kind]
    network, batches = make(), examples(shape, (5, 3, 1))
    found = score(of_network(network, batches))
    singles = [(x[i : i + 1], y[i : i + 1]) for x, y in batches for i in range(len(x))]
    parts, factor = (batches, 1.0) if score is taylor else (singles, 0.5)
    for name, weight in weights_of(network, found).items():
        expected = torch.zeros_like(weight)
        for part in parts:
            slope = derivative(lambda part=part: float(cross_entropy(network, part).detach()), weight)
            expected += factor * (slope * weight) ** 2 / len(parts)
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-10)


def test_fisher_splits_batches_of_any_form_into_examples() -> None:
    network, ((x, y),) = linear(), examples((4,), (5,))

    def of_table(network: nn.Module, batch: dict[str, Any]) -> Tensor:
        return functional.cross_entropy(network(batch["x"]["values"]), batch["y"])

    as_table = fisher(of_network(network, [{"x": {"values": x}, "y": y, "epoch": 3}], of_table))
    torch.testing.assert_close(as_table, fisher(of_network(network, [(x, y)])))


@each_network
def test_grasp_is_the_weight_times_the_explicit_hessian_times_the_gradient(kind: str) -> None:
    make, shape = NETWORKS[kind]
    network, batches = make(), examples(shape)
    found = grasp(of_network(network, batches))
    state = dict(network.named_parameters())
    sizes = [state[name].numel() for name in found]
    flat = torch.cat([state[name].detach().flatten() for name in found])

    def loss(flat: Tensor) -> Tensor:
        parts = zip(found, flat.split(sizes), strict=True)
        weights = {name: part.view_as(state[name]) for name, part in parts}
        frozen = {name: value.detach() for name, value in state.items()} | weights
        terms = [functional.cross_entropy(functional_call(network, frozen, (x,)), y) for x, y in batches]
        return torch.stack(terms).mean()

    expected = flat * (hessian(loss, flat) @ jacobian(loss, flat))
    torch.testing.assert_close(torch.cat([found[name].flatten() for name in found]), expected)


def test_grasp_prunes_first_the_weights_whose_removal_raises_the_gradient_flow_most() -> None:
    """By finite differences: to first order, removing a share ε of a weight changes g·g by -2 ε score."""
    network, batches = linear(), examples((4,), (6,))
    found = grasp(of_network(network, batches))
    weights = [dict(network.named_parameters())[name] for name in found]

    def flow() -> float:
        return sum(float(g.square().sum()) for g in torch.autograd.grad(cross_entropy(network, batches[0]), weights))

    for name, weight in zip(found, weights, strict=True):
        change = -derivative(flow, weight.detach()) * weight.detach()
        torch.testing.assert_close(change, -2 * found[name], rtol=1e-4, atol=1e-7)


def test_a_loss_that_is_linear_in_the_weights_has_no_curvature() -> None:
    found = grasp(of_network(nn.Linear(3, 1, bias=False), [torch.ones(2, 3)], lambda net, x: net(x).sum()))
    assert found["weight"].tolist() == [[0.0] * 3]


@each_score
def test_layers_that_the_loss_does_not_depend_on_score_zero(score: Any) -> None:
    network = nn.ModuleDict({"used": nn.Linear(4, 3), "unused": nn.Linear(4, 3)})
    batches = [(torch.ones(2, 4), torch.tensor([0, 1]))]
    found = score(of_network(network, batches, lambda net, batch: cross_entropy(net["used"], batch)))
    assert found["used.weight"].isfinite().all()
    assert not found["unused.weight"].any()


@each_score
def test_frozen_weights_are_scored_too_even_without_gradients_enabled(score: Any) -> None:
    with torch.no_grad():
        frozen = score(of_network(linear().requires_grad_(False), examples((4,))))
        torch.testing.assert_close(frozen, score(of_network(linear(), examples((4,)))))


@each_score
def test_half_precision_is_summed_in_float32(score: Any) -> None:
    """In bfloat16 a sum of equal terms would stop growing at 256 of them."""
    network, ((x, y),) = linear().bfloat16(), examples((4,), (1,))
    once, often = (score(of_network(network, [(x.bfloat16(), y)] * times)) for times in (1, 600))
    for name, found in often.items():
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, once[name], rtol=1e-3, atol=0)


@pytest.mark.parametrize("score", [taylor, fisher])
def test_squares_of_small_half_precision_gradients_do_not_underflow(score: Any) -> None:
    network = nn.Linear(3, 1, bias=False).half()
    found = score(of_network(network, [torch.full((1, 3), 1e-4).half()], lambda net, x: net(x).sum()))
    assert found["weight"].all()


def test_growth_is_the_gradient_on_the_first_batch_also_of_frozen_weights() -> None:
    network, batches = linear().requires_grad_(False), examples((4,))
    found, weights = gradient(of_network(network, batches)), dict(network.named_parameters())
    for name, sensitivity in snip(of_network(network, batches[:1])).items():
        torch.testing.assert_close(found[name] * weights[name].abs(), sensitivity)


def test_in_linear_layers_synflow_is_the_flow_through_each_weight() -> None:
    """Equation 4 of the paper: outgoing flow x magnitude x incoming flow."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 5, bias=False), nn.ReLU(), nn.Linear(5, 4, bias=False)).double()
    first, second = network[0].weight.detach().abs(), network[2].weight.detach().abs()
    found = synflow(of_network(network, [(torch.randn(7, 3), None)]))
    torch.testing.assert_close(found["0.weight"], second.sum(0).unsqueeze(1) * first)
    torch.testing.assert_close(found["2.weight"], second * first.sum(1))
    assert float(found["0.weight"].sum()) == pytest.approx(float(found["2.weight"].sum()))  # the layers' flow is one


def test_in_convolutions_with_biases_synflow_is_the_derivative_of_the_flow() -> None:
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


def test_synflow_needs_only_the_shape_of_an_example() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    before = synflow(of_network(network, [(torch.zeros(1, 2, 4, 4), None)]))
    network[1].running_mean.fill_(100.0)  # as a training would
    network[1].running_var.fill_(7.0)
    after = synflow(of_network(network, [(torch.randn(9, 2, 4, 4), None)]))
    assert {scores.dtype for scores in before.values()} == {torch.float64}
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_batch_norm_without_running_statistics_is_its_affine_part_in_synflow() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    without = copy.deepcopy(network)
    without[1] = nn.BatchNorm1d(4, track_running_stats=False)
    expected, found = (synflow(of_network(each, [(torch.randn(5, 3), None)])) for each in (network, without))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_synflow_refuses_other_batches_and_outputs() -> None:
    with raises_input_error("data:", "batches (x, y)", "not dict"):
        synflow(of_network(nn.Linear(3, 2), [{"x": torch.ones(1, 3)}]))
    with raises_input_error("tensor, not tuple"):
        synflow(of_network(nn.LSTM(3, 2), [(torch.ones(1, 3), None)]))
