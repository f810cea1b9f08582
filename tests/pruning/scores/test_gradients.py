from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.func import functional_call
from torch.nn import functional

from tests.pruning.scores.helpers import NETWORKS, derivative, examples, of_network
from tombola.pruning.scores.gradients import fisher, grasp, snip, taylor
from tombola.pruning.scores.inputs import cross_entropy
from tombola.utils.errors import InputError

each_network = pytest.mark.parametrize("kind", NETWORKS)


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
def test_taylor_is_the_mean_square_over_batches(kind: str) -> None:
    make, shape = NETWORKS[kind]
    network, batches = make(), examples(shape, (5, 3, 1))
    found = taylor(of_network(network, batches))
    for name, weight in weights_of(network, found).items():
        expected = torch.zeros_like(weight)
        for batch in batches:
            gradient = derivative(lambda batch=batch: float(cross_entropy(network, batch).detach()), weight)
            expected += (gradient * weight) ** 2 / len(batches)
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-10)


@each_network
def test_fisher_is_the_mean_square_over_single_examples(kind: str) -> None:
    make, shape = NETWORKS[kind]
    network, batches = make(), examples(shape)
    singles = [(x[i : i + 1], y[i : i + 1]) for x, y in batches for i in range(len(x))]
    found = fisher(of_network(network, batches))
    for name, weight in weights_of(network, found).items():
        expected = torch.zeros_like(weight)
        for single in singles:
            gradient = derivative(lambda single=single: float(cross_entropy(network, single).detach()), weight)
            expected += gradient**2 * weight**2 / 2 / len(singles)
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-10)


def test_fisher_takes_examples_out_of_batches_of_any_form() -> None:
    network, ((x, y),) = NETWORKS["linear"][0](), examples((4,), (5,))

    def of_table(network: nn.Module, batch: dict[str, Any]) -> Tensor:
        return functional.cross_entropy(network(batch["x"]["values"]), batch["y"])

    as_table = fisher(of_network(network, [{"x": {"values": x}, "y": y, "epoch": 3}], of_table))
    for name, score in fisher(of_network(network, [(x, y)])).items():
        torch.testing.assert_close(as_table[name], score)


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

    gradient = torch.autograd.functional.jacobian(loss, flat)
    expected = flat * (hessian(loss, flat) @ gradient)
    torch.testing.assert_close(torch.cat([found[name].flatten() for name in found]), expected)


def test_grasp_prunes_first_what_raises_the_gradient_flow_most() -> None:
    """By differences: to first order, removing a share ε of a weight changes g·g by -2 ε score."""
    network, batches = NETWORKS["linear"][0](), examples((4,), (6,))
    found = grasp(of_network(network, batches))
    weights = [dict(network.named_parameters())[name] for name in found]

    def flow() -> float:
        return sum(float(g.square().sum()) for g in torch.autograd.grad(cross_entropy(network, batches[0]), weights))

    for name, weight in zip(found, weights, strict=True):
        change = -derivative(flow, weight.detach()) * weight.detach()
        torch.testing.assert_close(change, -2 * found[name], rtol=1e-4, atol=1e-7)


def test_a_loss_that_is_linear_in_the_weights_has_no_curvature() -> None:
    network = nn.Linear(3, 1, bias=False)
    assert grasp(of_network(network, [torch.ones(2, 3)], lambda net, x: net(x).sum()))["weight"].tolist() == [
        [0.0] * 3
    ]


@pytest.mark.parametrize("score", [snip, taylor, fisher, grasp])
def test_layers_that_the_loss_does_not_depend_on_score_nothing(score: Any) -> None:
    network = nn.ModuleDict({"used": nn.Linear(4, 3), "unused": nn.Linear(4, 3)})
    found = score(
        of_network(network, [(torch.ones(2, 4), torch.tensor([0, 1]))], lambda net, b: _loss(net["used"], b))
    )
    assert found["used.weight"].isfinite().all()
    assert not found["unused.weight"].any()


def _loss(network: nn.Module, batch: Any) -> Tensor:
    return cross_entropy(network, batch)


@pytest.mark.parametrize("score", [snip, taylor, fisher, grasp])
def test_frozen_weights_are_scored_too_and_no_gradient_is_wanted_elsewhere(score: Any) -> None:
    make, shape = NETWORKS["linear"]
    free, frozen = make(), make().requires_grad_(False)
    with torch.no_grad():
        for name, expected in score(of_network(free, examples(shape))).items():
            torch.testing.assert_close(score(of_network(frozen, examples(shape)))[name], expected)


@pytest.mark.parametrize("score", [snip, taylor, fisher, grasp])
def test_half_precision_is_added_up_in_single(score: Any) -> None:
    """In bfloat16 a sum of equal terms would stop growing at 256 of them."""
    make, shape = NETWORKS["linear"]
    network, ((x, y),) = make().bfloat16(), examples(shape, (1,))
    once, often = (score(of_network(network, [(x.bfloat16(), y)] * times)) for times in (1, 600))
    for name, found in often.items():
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, once[name], rtol=1e-3, atol=0)


@pytest.mark.parametrize("score", [taylor, fisher])
def test_squares_of_small_gradients_do_not_vanish_in_half_precision(score: Any) -> None:
    network = nn.Linear(3, 1, bias=False).half()
    found = score(of_network(network, [torch.full((1, 3), 1e-4).half()], lambda net, x: net(x).sum()))
    assert found["weight"].all()


@pytest.mark.parametrize("score", [snip, taylor, fisher, grasp])
def test_what_is_missing_is_said(score: Any) -> None:
    with pytest.raises(InputError, match=r"looks at training examples.*give data=BATCHES"):
        score(of_network(NETWORKS["linear"][0]()))
    with pytest.raises(InputError, match="data has not one batch"):
        score(of_network(NETWORKS["linear"][0](), []))
