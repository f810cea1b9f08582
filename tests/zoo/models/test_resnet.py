from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from tests.zoo.models.helpers import conv_weights, made, output_of, parameters, weights
from tombola.pruning.mask import Mask
from tombola.zoo.models.resnet import ResidualBlock, Subsample


def conv_weights_of(blocks: int, widths: list[int], projections: bool, channels: int = 3) -> int:
    """He et al. 2015, by the sum of its terms."""
    inside = sum((2 * blocks - 1) * 9 * width**2 for width in widths)
    first = sum(9 * before * after for before, after in pairwise([widths[0], *widths]))
    shortcuts = sum(before * after for before, after in pairwise(widths))
    return 9 * channels * widths[0] + inside + first + (shortcuts if projections else 0)


def test_resnet_20_has_the_weights_of_the_paper() -> None:
    network = made("resnet-20")
    assert conv_weights(network) == conv_weights_of(3, [16, 32, 64], projections=True) == 270_256
    assert weights(network) == 270_256 + 64 * 10
    norms = 16 + 6 * 16 + 6 * 32 + 6 * 64 + 32 + 64
    assert parameters(network) == 270_896 + 10 + 2 * norms == 272_474


def test_the_papers_274k_count_running_means_and_variances_too() -> None:
    network = made("resnet-20")
    statistics = sum(buffer.numel() for buffer in network.buffers() if buffer.is_floating_point())
    assert parameters(network) + statistics == 274_042


def test_layers_of_resnet_20() -> None:
    sizes = Mask.full(made("resnet-20")).sizes
    assert len([name for name in sizes if "shortcut" not in name]) == 20
    assert {name: size for name, size in sizes.items() if "shortcut" in name} == {
        "stage2.0.shortcut.0.weight": 16 * 32,
        "stage3.0.shortcut.0.weight": 32 * 64,
    }
    assert sizes["conv.weight"] == 9 * 3 * 16
    assert sizes["stage2.0.conv1.weight"] == 9 * 16 * 32
    assert sizes["stage3.2.conv2.weight"] == 9 * 64 * 64


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 44, 56, 110])
@pytest.mark.parametrize("shortcut", ["projection", "identity"])
def test_resnets_of_any_depth(depth: int, shortcut: str) -> None:
    network = made("resnet", depth=depth, shortcut=shortcut)
    expected = conv_weights_of((depth - 2) // 6, [16, 32, 64], projections=shortcut == "projection")
    assert conv_weights(network) == expected
    assert weights(network) == expected + 640
    main = [name for name in Mask.full(network) if "shortcut" not in name]
    assert len(main) == depth


def test_resnet_of_depth_20_is_resnet_20() -> None:
    named, general = made("resnet-20").state_dict(), made("resnet", depth=20).state_dict()
    assert named.keys() == general.keys()
    assert all(torch.equal(named[name], general[name]) for name in named)


def test_resnet_18_has_11_164_352_weights() -> None:
    network = made("resnet-18")
    widths = [64, 128, 256, 512]
    assert conv_weights(network) == conv_weights_of(2, widths, projections=True) == 11_159_232
    assert weights(network) == 11_159_232 + 512 * 10
    norms = 64 + sum(4 * width for width in widths) + sum(widths[1:])
    assert parameters(network) == 11_164_352 + 10 + 2 * norms
    assert len([name for name in Mask.full(network) if "shortcut" not in name]) == 18


@pytest.mark.parametrize(
    ("name", "width", "widths"), [("resnet-20", 8, [8, 16, 32]), ("resnet-18", 4, [4, 8, 16, 32])]
)
def test_width_is_that_of_the_first_stage(name: str, width: int, widths: list[int]) -> None:
    network = made(name, width=width)
    assert conv_weights(network) == conv_weights_of(3 if name == "resnet-20" else 2, widths, projections=True)
    assert [network.get_parameter(f"stage{i + 1}.0.conv2.weight").shape[0] for i in range(len(widths))] == widths


@pytest.mark.parametrize(("name", "sides"), [("resnet-20", [32, 32, 16, 8]), ("resnet-18", [32, 32, 16, 8, 4])])
def test_each_later_stage_halves_the_image(name: str, sides: list[int]) -> None:
    network = made(name, width=2)
    seen = []
    for layer in ["conv", *(f"stage{i}" for i in range(1, len(sides)))]:
        network.get_submodule(layer).register_forward_hook(
            lambda _module, _inputs, output: seen.append(output.shape[2])
        )
    output_of(network, (3, 32, 32))
    assert seen == sides


def test_an_identity_shortcut_keeps_every_second_pixel_and_adds_zeros() -> None:
    x = torch.arange(2 * 3 * 5 * 4.0).view(2, 3, 5, 4)
    y = Subsample(7)(x)
    assert y.shape == (2, 7, 3, 2)
    assert torch.equal(y[:, :3], x[:, :, ::2, ::2])
    assert not y[:, 3:].any()


def test_a_block_adds_its_shortcut_before_the_last_relu() -> None:
    block = ResidualBlock(4, 4, halve=False, shortcut="projection")
    nn.init.zeros_(block.bn2.weight)
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(block(x), x.relu())
