from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from tests.zoo.models.helpers import conv_weights, layer_sizes, made, output_of, parameters, weights
from tombola.pruning.mask import prunable

COUNTS = {"conv-2": (4_300_992, 38_592), "conv-4": (2_425_024, 259_776), "conv-6": (2_261_184, 1_144_512)}


@pytest.mark.parametrize("name", COUNTS)
def test_convs_have_the_weights_of_the_paper_as_drawn(name: str) -> None:
    """Frankle & Carbin 2019, figure 2."""
    channels = [3, 64, 64, 128, 128, 256, 256][: int(name[-1]) + 1]
    side = 32 // 2 ** (int(name[-1]) // 2)
    units = [channels[-1] * side**2, 256, 256, 10]
    conv = [9 * before * after for before, after in pairwise(channels)]
    linear = [before * after for before, after in pairwise(units)]
    network = made(name)
    assert layer_sizes(network) == conv + linear
    assert (weights(network), conv_weights(network)) == (sum(conv + linear), sum(conv)) == COUNTS[name]
    assert parameters(network) == COUNTS[name][0] + sum(channels[1:]) + sum(units[1:])


def test_layers_are_named_and_in_order() -> None:
    network = made("conv-4", dropout=0.5)
    assert " ".join(name for name, _ in network.named_children()) == (
        "conv1 relu1 conv2 relu2 pool1 conv3 relu3 conv4 relu4 pool2 flatten "
        "fc1 relu5 dropout1 fc2 relu6 dropout2 output"
    )
    assert " ".join(name for name, _ in made("conv-2", inputs=(28, 28)).named_children()) == (
        "channel conv1 relu1 conv2 relu2 pool1 flatten fc1 relu3 fc2 relu4 output"
    )
    assert prunable(made("conv-2")) == [f"{layer}.weight" for layer in ("conv1", "conv2", "fc1", "fc2", "output")]


@pytest.mark.parametrize("name", COUNTS)
def test_dropout_stands_behind_hidden_linear_layers_and_rests_in_evaluation(name: str) -> None:
    network = made(name, width=0.1, dropout=0.5)
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    assert not any(isinstance(m, nn.Dropout) for m in made(name, width=0.1).modules())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(output_of(network, (3, 32, 32)), output_of(network, (3, 32, 32)))
        network.eval()
        assert torch.equal(output_of(network, (3, 32, 32)), output_of(network, (3, 32, 32)))


def test_dropout_does_not_change_the_initial_weights() -> None:
    plain, dropping = (made("conv-2", width=0.1, dropout=p).state_dict() for p in (0.0, 0.5))
    assert plain.keys() == dropping.keys()
    assert all(torch.equal(plain[name], dropping[name]) for name in plain)


@pytest.mark.parametrize(
    ("width", "channels", "units"),
    [(0.5, [32, 32, 64, 64], [128, 128]), (0.01, [1, 1, 1, 1], [3, 3]), (1.5, [96, 96, 192, 192], [384, 384])],
)
def test_width_multiplies_channels_and_units(width: float, channels: list[int], units: list[int]) -> None:
    network = made("conv-4", width=width)
    outputs = [m.weight.shape[0] for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert outputs == [*channels, *units, 10]
