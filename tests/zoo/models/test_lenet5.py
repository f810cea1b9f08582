from __future__ import annotations

import pytest
from torch import nn

from tests.zoo.models.helpers import MNIST, conv_weights, layer_sizes, made, output_of, parameters, weights


def test_lenet_5_has_61_470_weights() -> None:
    network = made("lenet-5", inputs=MNIST)
    # LeCun et al. 1998, figure 2, but with all 6 channels before each of the 16
    assert layer_sizes(network) == [6 * 1 * 25, 16 * 6 * 25, 16 * 5 * 5 * 120, 120 * 84, 84 * 10]
    assert weights(network) == 61_470
    assert conv_weights(network) == 2_550
    assert parameters(network) == 61_470 + 6 + 16 + 120 + 84 + 10


@pytest.mark.parametrize(
    ("inputs", "padding"),
    [((28, 28), (2, 2)), ((3, 32, 32), (0, 0)), ((8, 8), (12, 12)), ((27, 30), (3, 1)), ((1, 40, 20), (0, 6))],
)
def test_smaller_images_are_padded_to_32_pixels(inputs: tuple[int, ...], padding: tuple[int, int]) -> None:
    network = made("lenet-5", inputs=inputs)
    conv = network.get_submodule("conv1")
    assert isinstance(conv, nn.Conv2d)
    assert conv.padding == padding
    assert output_of(network, inputs).shape == (2, 10)
