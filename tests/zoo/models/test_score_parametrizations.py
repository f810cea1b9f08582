"""Binary weights and Bernoulli gates, held to references written by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tombola.engines.stacked.stackability import why_not_stackable
from tombola.runs.run import Run
from tombola.zoo.models import build, describe_parametrized
from tombola.zoo.models.description import Network, Start
from tombola.zoo.models.parametrizations.bernoulli_gates import BernoulliGates
from tombola.zoo.models.parametrizations.biprop import Biprop

WEIGHT = torch.tensor([[0.5, -2.0, 1.0], [-0.25, 4.0, -3.0]])
SLOPE = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


def gradient_of(effective: Tensor, module: nn.Module) -> Tensor:
    """The gradient of the scores, if SLOPE is that of the effective weights."""
    effective.backward(SLOPE)  # type: ignore[no-untyped-call]
    gradient = module.get_parameter("scores").grad
    assert gradient is not None
    return gradient


def test_kept_weights_of_biprop_are_their_signs_times_their_mean_magnitude() -> None:
    module = Biprop(WEIGHT, keep=3)
    with torch.no_grad():
        module.scores.copy_(torch.tensor([[0.1, -0.9, 0.2], [0.3, 0.8, -0.7]]))
    effective = module(WEIGHT)
    assert torch.equal(effective, torch.tensor([[0.0, -3.0, 0.0], [0.0, 3.0, -3.0]]))  # (2 + 4 + 3) / 3
    # Straight through the mask and the binary weights; the sign is that of the absolute value of the score.
    expected = SLOPE * WEIGHT * module.scores.detach().sign()
    assert torch.equal(gradient_of(effective, module), expected)


def test_a_layer_of_biprop_can_be_empty() -> None:
    assert not Biprop(WEIGHT, keep=0)(WEIGHT).any()


@pytest.mark.parametrize("rescale", [False, True])
def test_bernoulli_gates_draw_in_training_and_keep_exact_counts_in_evaluation(rescale: bool) -> None:
    module = BernoulliGates(WEIGHT, keep=2, rescale=rescale)
    with torch.no_grad():
        module.scores.copy_(torch.tensor([[0.0, 40.0, -1.0], [2.0, -2.0, 50.0]]))
    torch.manual_seed(3)
    effective = module(WEIGHT)
    torch.manual_seed(3)
    probabilities = module.scores.detach().sigmoid()
    drawn = torch.bernoulli(probabilities)
    factor = 6 / drawn.sum() if rescale else 1.0
    assert torch.equal(effective, WEIGHT * drawn * factor)
    # As if the draw were its probability; the number of weights kept is a constant.
    expected = SLOPE * WEIGHT * factor * probabilities * (1 - probabilities)
    assert torch.allclose(gradient_of(effective, module), expected)
    kept = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])  # two probabilities are 1 in single precision
    assert torch.equal(module.eval()(WEIGHT), WEIGHT * kept * (3.0 if rescale else 1.0))


def test_gates_start_at_the_density_of_their_layer() -> None:
    weight = torch.randn(200, 300)
    probabilities = BernoulliGates(weight, keep=12_000).scores.sigmoid()
    assert probabilities.mean().item() == pytest.approx(0.2, abs=0.01)
    assert len(probabilities.unique()) > 1000  # so that the mask before training is a random one


@pytest.mark.parametrize("by", ["biprop", "bernoulli-gates"])
def test_such_networks_can_be_stacked(by: str, dense: Run) -> None:
    network = Network(name="mlp", options={"widths": [20, 10]}, inputs=(8, 8), classes=10)
    plain = build(Start(network=network, seed=3))
    layers = {n: {"keep": p.numel() // 2} for n, p in plain.named_parameters() if p.ndim > 1}
    start = Start(network=describe_parametrized(network, by, layers), seed=3)
    assert why_not_stackable(dense.model_copy(update={"start": start})) is None
