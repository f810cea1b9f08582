"""Top-KAST and soft thresholds against gradients written by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.engines.stacked.stackability import why_not_stackable
from tombola.runs.run import Run
from tombola.zoo.models import describe_parametrized
from tombola.zoo.models.description import Network, Start
from tombola.zoo.models.parametrizations.soft_threshold import SoftThreshold, threshold_of
from tombola.zoo.models.parametrizations.top_kast import TopKast
from tombola.zoo.models.reparametrization import reparametrize

X = torch.rand(5, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(5) % 4


def loss_and_gradient(weight: Tensor) -> Tensor:
    """The gradient of the loss by the weight that is used, none of it cut off."""
    used = weight.detach().clone().requires_grad_()
    functional.cross_entropy(X @ used.t(), Y).backward()  # type: ignore[no-untyped-call]
    assert used.grad is not None
    return used.grad


@pytest.mark.parametrize(("keep", "train"), [(6, 12), (1, 24), (24, 24), (5, 5)])
def test_top_kast_trains_more_weights_than_it_uses(keep: int, train: int) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 4, bias=False)
    weight = layer.weight.detach().clone()
    reparametrize(layer, "top-kast", {"weight": {"keep": keep, "train": train, "penalty": 0.1}})
    ranked = sorted(range(24), key=lambda i: -abs(float(weight.flatten()[i])))
    used = torch.zeros(24)
    used[ranked[:keep]] = 1
    used = used.view(4, 6) * weight
    assert torch.equal(layer.weight, used)
    functional.cross_entropy(layer(X), Y).backward()  # type: ignore[no-untyped-call]
    gradient, expected = loss_and_gradient(used).flatten(), torch.zeros(24)
    for place, i in enumerate(ranked[:train]):
        decay = 0.1 if place < keep else 0.1 / (keep / 24)
        expected[i] = gradient[i] + decay * weight.flatten()[i]
    original = layer.get_parameter("parametrizations.weight.original").grad
    assert original is not None
    torch.testing.assert_close(original.flatten(), expected)
    assert int((original != 0).sum()) == train


def test_thresholds_are_trained_by_the_weights_above_them() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 4, bias=False)
    weight = layer.weight.detach().clone()
    reparametrize(layer, "soft-threshold", {"weight": {"initial": -1.5}})
    threshold = torch.tensor(-1.5).sigmoid()
    torch.testing.assert_close(threshold_of(layer.state_dict(), "weight"), threshold)
    above = weight.abs() > threshold
    assert 0 < int(above.sum()) < 24
    used = torch.where(above, weight - threshold * weight.sign(), 0)
    torch.testing.assert_close(layer.weight, used)
    functional.cross_entropy(layer(X), Y).backward()  # type: ignore[no-untyped-call]
    gradient = loss_and_gradient(used)
    grads = {name: parameter.grad for name, parameter in layer.named_parameters()}
    torch.testing.assert_close(grads["parametrizations.weight.original"], gradient * above)
    slope = -(threshold * (1 - threshold)) * (gradient * weight.sign())[above].sum()
    torch.testing.assert_close(grads["parametrizations.weight.0.threshold"], slope)


def test_both_train_alike_in_a_stack(dense: Run) -> None:
    network = Network(name="mlp", options={"widths": [8]}, inputs=(8, 8), classes=10)
    for by, options in (
        ("top-kast", {"keep": 40, "train": 60, "penalty": 0.1}),
        ("soft-threshold", {"initial": -4.0}),
    ):
        start = Start(network=describe_parametrized(network, by, {"fc1.weight": options}), seed=0)
        assert why_not_stackable(dense.model_copy(update={"start": start})) is None, by


def test_options_of_layers_are_required() -> None:
    with pytest.raises(TypeError):
        SoftThreshold(torch.ones(2, 2))  # type: ignore[call-arg]
    assert not list(TopKast(torch.ones(2, 2), keep=1, train=2).parameters())
