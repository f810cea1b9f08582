"""What tests of architectures rely on: these are valid, repeatable, and sensitive to what they are given."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from tests.support.architectures import ARCHITECTURES
from tests.support.architectures.architecture import Factory, in_dtype, outputs
from tests.support.architectures.random_graphs import random_graph


def check(factory: Factory) -> None:
    network, example = factory()
    before = outputs(network, example)
    assert all(torch.equal(*pair) for pair in zip(before, outputs(*factory()), strict=True))
    exact = outputs(copy.deepcopy(network).double(), in_dtype(example, torch.float64))
    for some, other in zip(before, exact, strict=True):
        assert other.dtype == torch.float64
        assert (some - other).abs().max() <= 3e-5 * other.abs().max()
    assert all(differs(output) for output in before)
    assert len(outputs(network.train(), example)) == len(before)


def differs(output: Tensor) -> bool:
    """Whether two examples have different outputs."""
    return bool((output[0] - output[1]).abs().max() > 1e-3 * output.abs().max())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture(name: str) -> None:
    check(ARCHITECTURES[name])


@pytest.mark.parametrize("seed", range(60))
def test_a_random_graph(seed: int) -> None:
    check(lambda: random_graph(seed))


def test_random_graphs_are_of_all_kinds() -> None:
    names = {type(module).__name__ for seed in range(60) for module in random_graph(seed)[0].modules()}
    norms = {"BatchNorm2d", "GroupNorm", "LayerNorm", "PReLU", "BatchNorm1d"}
    layers = {"Conv2d", "ConvTranspose2d", "Linear", "MultiheadAttention", "Upsample", "PixelShuffle", "MaxPool2d"}
    steps = {"Sum", "Concatenation", "Residual", "SqueezeExcite", "Split", "Shuffled", "Scaled", "Padded"}
    assert names >= norms | layers | steps | {"Attention"}
