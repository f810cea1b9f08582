from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from tests.zoo.models.helpers import MNIST, NEEDED, SMALL, made
from tombola.pruning.mask import prunable
from tombola.zoo.models import MODELS

LARGE: dict[str, dict[str, Any]] = NEEDED | {"vgg-16": {"width": 0.5}, "vgg-19": {"width": 0.5}}


@pytest.mark.parametrize(
    ("init", "spread"),
    [("glorot-normal", math.sqrt(2 / (784 + 300))), ("kaiming-normal", math.sqrt(2 / 784))],
)
def test_initial_weights_have_the_distribution_they_should(init: str, spread: float) -> None:
    network = made("lenet-300-100", inputs=MNIST, init=init)
    weight = network.get_parameter("fc1.weight").detach()
    assert weight.mean().item() == pytest.approx(0, abs=spread / 100)
    assert weight.std().item() == pytest.approx(spread, rel=0.01)
    standardised = weight.flatten() / spread
    for threshold, tail in [(1, 0.3173), (2, 0.0455), (3, 0.0027)]:  # a normal distribution's, not truncated
        assert (standardised.abs() > threshold).double().mean().item() == pytest.approx(tail, rel=0.1)


@pytest.mark.parametrize("init", ["glorot-normal", "kaiming-normal"])
@pytest.mark.parametrize("name", MODELS)
def test_every_layer_has_the_spread_it_should(name: str, init: str) -> None:
    """The fans of a convolution are its channels times the pixels of its kernel."""
    network = made(name, init=init, **LARGE.get(name, {}))
    for layer in prunable(network):
        weight = network.get_parameter(layer).detach()
        out, into, *kernel = weight.shape
        pixels = math.prod(kernel)
        fans = (into + out) * pixels if init == "glorot-normal" else into * pixels
        sampling = 5 / math.sqrt(2 * weight.numel())  # five standard errors of a standard deviation
        assert weight.square().mean().sqrt().item() == pytest.approx(math.sqrt(2 / fans), rel=sampling), layer


@pytest.mark.parametrize("name", MODELS)
def test_biases_are_zero(name: str) -> None:
    biases = [p for n, p in made(name, **SMALL[name]).named_parameters() if n.endswith("bias")]
    assert biases
    assert not any(bias.any() for bias in biases)


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith(("resnet", "vgg"))])
def test_batch_norm_begins_with_ones_or_with_uniform_weights(name: str) -> None:
    options = NEEDED.get(name, {})

    def drawn(seed: int, **more: str) -> torch.Tensor:
        network = made(name, seed, **options, **more)
        return torch.cat([m.weight.detach() for m in network.modules() if isinstance(m, nn.BatchNorm2d)])

    assert (drawn(0) == 1).all()
    uniform = drawn(0, norm="uniform")
    assert 0 <= uniform.min() < 0.05
    assert 0.95 < uniform.max() < 1
    assert uniform.mean().item() == pytest.approx(0.5, abs=5 * math.sqrt(1 / 12 / len(uniform)))
    assert torch.equal(drawn(0, norm="uniform"), uniform)
    assert not torch.equal(drawn(1, norm="uniform"), uniform)
