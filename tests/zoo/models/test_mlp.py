from __future__ import annotations

from itertools import pairwise

import pytest
from torch import nn

from tests.zoo.models.helpers import MNIST, made, parameters, weights
from tombola.pruning.mask import Mask
from tombola.zoo.models.mlp import mlp


def test_lenet_300_100_has_266_200_weights() -> None:
    """Frankle & Carbin 2019, figure 2."""
    network = made("lenet-300-100", inputs=MNIST)
    assert weights(network) == 784 * 300 + 300 * 100 + 100 * 10 == 266_200
    assert parameters(network) == 266_200 + 410


@pytest.mark.parametrize("widths", [[], [7], [20, 30, 40]])
def test_mlps_of_any_widths(widths: list[int]) -> None:
    network = mlp((5, 4), 3, widths)
    dims = [20, *widths, 3]
    assert list(Mask.full(network).sizes.values()) == [a * b for a, b in pairwise(dims)]
    assert list(Mask.full(network)) == [*(f"fc{i + 1}.weight" for i in range(len(widths))), "output.weight"]


def test_dropout_stands_behind_every_hidden_layer() -> None:
    network = made("mlp", widths=[5, 5], dropout=0.5)
    assert sum(isinstance(module, nn.Dropout) for module in network.modules()) == 2
