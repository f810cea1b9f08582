from __future__ import annotations

from itertools import pairwise

import pytest
from torch import nn

from tests.zoo.models.helpers import conv_weights, layer_sizes, made, parameters, weights

STAGES = {"vgg-11": [1, 1, 2, 2, 2], "vgg-16": [2, 2, 3, 3, 3], "vgg-19": [2, 2, 4, 4, 4]}
COUNTS = {"vgg-11": 9_222_848, "vgg-16": 14_715_584, "vgg-19": 20_024_000}


def widths_of(name: str, factor: float = 1) -> list[int]:
    """Simonyan & Zisserman 2015, table 1."""
    stages = zip([64, 128, 256, 512, 512], STAGES[name], strict=True)
    return [round(channels * factor) for channels, count in stages for _ in range(count)]


@pytest.mark.parametrize("name", COUNTS)
def test_vggs_have_the_weights_they_should(name: str) -> None:
    network = made(name)
    widths = widths_of(name)
    conv = [9 * before * after for before, after in pairwise([3, *widths])]
    assert layer_sizes(network) == [*conv, 512 * 10]
    assert weights(network) == sum(conv) + 5_120 == COUNTS[name]
    assert conv_weights(network) == sum(conv)
    assert parameters(network) == COUNTS[name] + 10 + 2 * sum(widths)


@pytest.mark.parametrize("name", COUNTS)
def test_layers_are_named_and_in_order(name: str) -> None:
    names, index = [], 0
    for stage, count in enumerate(STAGES[name]):
        names += [f"pool{stage}"] if stage else []
        for _ in range(count):
            index += 1
            names += [f"conv{index}", f"bn{index}", f"relu{index}"]
    names += ["average", "flatten", "output"]
    assert [layer for layer, _ in made(name, width=0.05).named_children()] == names


@pytest.mark.parametrize("width", [0.5, 0.1, 1.25])
def test_width_multiplies_the_channels(width: float) -> None:
    network = made("vgg-11", width=width)
    channels = [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert channels == widths_of("vgg-11", width)


def test_there_is_always_a_channel() -> None:
    network = made("vgg-11", width=0.001)
    assert {m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)} == {1}
