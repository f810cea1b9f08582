"""Layers and numbers of weights, as in the papers."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.support.zoo_networks import CIFAR, MNIST, build_network, output_of
from tombola.pruning.mask import Mask
from tombola.zoo.models.mlp import mlp
from tombola.zoo.models.resnet import ResidualBlock, Subsample
from tombola.zoo.models.vit import Attention

STAGES = {"vgg-11": [1, 1, 2, 2, 2], "vgg-16": [2, 2, 3, 3, 3], "vgg-19": [2, 2, 4, 4, 4]}
"""Convolutions of each stage: Simonyan & Zisserman 2015, table 1."""
VGG_WEIGHTS = {"vgg-11": 9_222_848, "vgg-16": 14_715_584, "vgg-19": 20_024_000}
VIT_BLOCK = 192 * 3 * 192 + 192 * 192 + 2 * 192 * 768


def conv_sizes(*channels: int, kernel: int = 3) -> list[int]:
    return [kernel**2 * before * after for before, after in pairwise(channels)]


def resnet_conv_weights(blocks: int, widths: list[int], projections: bool = True) -> int:
    """Computed from He et al. 2015."""
    inside = sum((2 * blocks - 1) * 9 * width**2 for width in widths)
    shortcuts = sum(conv_sizes(*widths, kernel=1)) if projections else 0
    return 9 * 3 * widths[0] + inside + sum(conv_sizes(widths[0], *widths)) + shortcuts


def vgg_widths(name: str, factor: float = 1) -> list[int]:
    stages = zip([64, 128, 256, 512, 512], STAGES[name], strict=True)
    return [round(channels * factor) for channels, count in stages for _ in range(count)]


def channels_of(network: nn.Module) -> list[int]:
    return [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)]


def names_of(network: nn.Module) -> str:
    return " ".join(name for name, _ in network.named_children())


@pytest.mark.parametrize(
    ("name", "inputs", "total", "conv", "linear", "others"),
    [
        # Frankle & Carbin 2019, figure 2
        ("lenet-300-100", MNIST, 266_200, 0, 784 * 300 + 300 * 100 + 100 * 10, 410),
        # LeCun et al. 1998, figure 2, but each of the 16 channels takes all 6
        (
            "lenet-5",
            MNIST,
            61_470,
            6 * 25 + 16 * 6 * 25,
            16 * 5 * 5 * 120 + 120 * 84 + 84 * 10,
            6 + 16 + 120 + 84 + 10,
        ),
        ("conv-2", CIFAR, 4_300_992, 38_592, (64 * 16**2 + 256 + 10) * 256, 2 * 64 + 522),
        ("conv-4", CIFAR, 2_425_024, 259_776, (128 * 8**2 + 256 + 10) * 256, 2 * (64 + 128) + 522),
        ("conv-6", CIFAR, 2_261_184, 1_144_512, (256 * 4**2 + 256 + 10) * 256, 2 * (64 + 128 + 256) + 522),
        ("resnet-20", CIFAR, 270_896, resnet_conv_weights(3, [16, 32, 64]), 64 * 10, 10 + 2 * 784),
        ("resnet-18", CIFAR, 11_164_352, resnet_conv_weights(2, [64, 128, 256, 512]), 512 * 10, 10 + 2 * 4_800),
        # torchvision's resnet50 has 25,557,032 parameters with 1,000 classes.
        ("resnet-50", (3, 224, 224), 23_475_392, 23_454_912, 2048 * 10, 25_557_032 - 23_454_912 - 2049 * 1000 + 10),
        *[
            (name, CIFAR, total, sum(conv_sizes(3, *vgg_widths(name))), 512 * 10, 10 + 2 * sum(vgg_widths(name)))
            for name, total in VGG_WEIGHTS.items()
        ],
        ("vit", CIFAR, 2_665_344, 9_216, 6 * VIT_BLOCK + 192 * 10, 192 + 64 * 192 + 6 * 2_496 + 2 * 192 + 10),
    ],
)
def test_numbers_of_weights_and_of_other_parameters(
    name: str, inputs: tuple[int, ...], total: int, conv: int, linear: int, others: int
) -> None:
    network = build_network(name, inputs=inputs)
    assert Mask.full(network).size == conv + linear == total
    assert sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d)) == conv
    assert sum(parameter.numel() for parameter in network.parameters()) == conv + linear + others


@pytest.mark.parametrize(
    ("name", "options", "names"),
    [
        (
            "conv-4",
            {"dropout": 0.5},
            "conv1 relu1 conv2 relu2 pool1 conv3 relu3 conv4 relu4 pool2 flatten "
            "fc1 relu5 dropout1 fc2 relu6 dropout2 output",
        ),
        (
            "conv-2",
            {"inputs": (28, 28)},
            "channel conv1 relu1 conv2 relu2 pool1 flatten fc1 relu3 fc2 relu4 output",
        ),
        (
            "vgg-11",
            {"width": 0.05},
            "conv1 bn1 relu1 pool1 conv2 bn2 relu2 pool2 conv3 bn3 relu3 conv4 bn4 relu4 pool3 "
            "conv5 bn5 relu5 conv6 bn6 relu6 pool4 conv7 bn7 relu7 conv8 bn8 relu8 average flatten output",
        ),
        ("mlp", {"widths": [5, 5], "dropout": 0.5}, "flatten fc1 relu1 dropout1 fc2 relu2 dropout2 output"),
    ],
)
def test_layers_are_named_and_in_order(name: str, options: dict[str, Any], names: str) -> None:
    assert names_of(build_network(name, **options)) == names


@pytest.mark.parametrize(
    ("name", "options", "channels"),
    [
        ("conv-4", {"width": 0.5}, [32, 32, 64, 64]),
        ("conv-4", {"width": 0.01}, [1, 1, 1, 1]),
        ("conv-4", {"width": 1.5}, [96, 96, 192, 192]),
        *[("vgg-11", {"width": width}, vgg_widths("vgg-11", width)) for width in (0.5, 0.1, 1.25)],
        ("vgg-11", {"width": 0.001}, [1] * 8),
        *[(name, {"width": 0.1}, vgg_widths(name, 0.1)) for name in ("vgg-16", "vgg-19")],
    ],
)
def test_width_multiplies_the_channels(name: str, options: dict[str, Any], channels: list[int]) -> None:
    assert channels_of(build_network(name, **options)) == channels


@pytest.mark.parametrize(("width", "units"), [(0.5, 128), (0.01, 3), (1.5, 384)])
def test_the_width_of_conv_networks_multiplies_hidden_units(width: float, units: int) -> None:
    network = build_network("conv-4", width=width)
    assert [m.out_features for m in network.modules() if isinstance(m, nn.Linear)] == [units, units, 10]


@pytest.mark.parametrize("widths", [[], [7], [20, 30, 40]])
def test_an_mlp_has_the_given_widths(widths: list[int]) -> None:
    sizes = Mask.full(mlp((5, 4), 3, widths)).sizes
    assert list(sizes.values()) == [a * b for a, b in pairwise([20, *widths, 3])]
    assert list(sizes) == [*(f"fc{i + 1}.weight" for i in range(len(widths))), "output.weight"]


@pytest.mark.parametrize(
    ("inputs", "padding"),
    [((28, 28), (2, 2)), ((3, 32, 32), (0, 0)), ((8, 8), (12, 12)), ((27, 30), (3, 1)), ((1, 40, 20), (0, 6))],
)
def test_lenet_5_pads_smaller_images_to_32_pixels(inputs: tuple[int, ...], padding: tuple[int, int]) -> None:
    network = build_network("lenet-5", inputs=inputs)
    conv = network.get_submodule("conv1")
    assert isinstance(conv, nn.Conv2d)
    assert conv.padding == padding
    assert output_of(network, inputs).shape == (2, 10)


def test_dropout_is_off_in_evaluation_and_does_not_change_the_initial_weights() -> None:
    plain, network = (build_network("conv-2", width=0.1, dropout=p) for p in (0.0, 0.5))
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    assert not any(isinstance(m, nn.Dropout) for m in plain.modules())
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in plain.state_dict().items())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(output_of(network, CIFAR), output_of(network, CIFAR))
        network.eval()
        assert torch.equal(output_of(network, CIFAR), output_of(network, CIFAR))


def test_running_means_and_variances_of_resnet_20_make_274k_numbers_as_in_the_paper() -> None:
    tensors = build_network("resnet-20").state_dict().values()
    assert sum(tensor.numel() for tensor in tensors if tensor.is_floating_point()) == 274_042


@pytest.mark.parametrize("depth", [8, 20, 56])
@pytest.mark.parametrize("shortcut", ["projection", "identity"])
def test_weights_of_resnets_by_depth(depth: int, shortcut: str) -> None:
    sizes = Mask.full(build_network("resnet", depth=depth, shortcut=shortcut)).sizes
    projections = {"stage2.0.shortcut.0.weight": 16 * 32, "stage3.0.shortcut.0.weight": 32 * 64}
    found = {name: size for name, size in sizes.items() if "shortcut" in name}
    assert found == (projections if shortcut == "projection" else {})
    assert sum(sizes.values()) == resnet_conv_weights((depth - 2) // 6, [16, 32, 64], bool(found)) + 640
    assert len(sizes) - len(found) == depth
    assert (sizes["conv.weight"], sizes["stage2.0.conv1.weight"]) == (9 * 3 * 16, 9 * 16 * 32)


def test_resnet_of_depth_20_is_resnet_20() -> None:
    named, general = build_network("resnet-20").state_dict(), build_network("resnet", depth=20).state_dict()
    assert named.keys() == general.keys()
    assert all(torch.equal(named[name], general[name]) for name in named)


@pytest.mark.parametrize(
    ("name", "width", "widths", "sides"),
    [("resnet-20", 8, [8, 16, 32], [32, 32, 16, 8]), ("resnet-18", 4, [4, 8, 16, 32], [32, 32, 16, 8, 4])],
)
def test_each_stage_after_the_first_doubles_the_channels_and_halves_the_image(
    name: str, width: int, widths: list[int], sides: list[int]
) -> None:
    network, seen = build_network(name, width=width), []
    for layer in ["conv", *(f"stage{i}" for i in range(1, len(sides)))]:
        network.get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape))
    output_of(network, CIFAR)
    assert [shape[1] for shape in seen] == [width, *widths]
    assert [shape[2] for shape in seen] == sides


def test_an_identity_shortcut_keeps_every_second_pixel_and_adds_channels_of_zeros() -> None:
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


def test_linear_layers_of_vit_are_prunable_and_position_embeddings_are_not() -> None:
    names = list(Mask.full(build_network("vit", depth=1)))
    block = [f"block1.{layer}.weight" for layer in ("attention.qkv", "attention.proj", "fc1", "fc2")]
    assert names == ["tokens.conv.weight", *block, "output.weight"]


@pytest.mark.parametrize(
    ("inputs", "patch", "tokens"), [((3, 32, 32), 4, 64), ((28, 28), 7, 16), ((3, 12, 20), 4, 15), ((8, 8), 8, 1)]
)
def test_position_embeddings_have_a_row_for_each_patch(inputs: tuple[int, ...], patch: int, tokens: int) -> None:
    network = build_network("vit", inputs=inputs, patch=patch, width=6, depth=1)
    assert network.get_parameter("tokens.position").shape == (tokens, 6)
    assert output_of(network, inputs).shape == (2, 10)


def test_position_embeddings_have_standard_deviation_0_02_and_matter() -> None:
    position = build_network("vit", width=192).get_parameter("tokens.position").detach()
    assert position.std().item() == pytest.approx(0.02, rel=5 / math.sqrt(2 * position.numel()))
    network = build_network("vit", width=12, depth=1).eval()
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(network(x), network(x.flip(3)), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "hidden", "blocks"),
    [({"mlp_ratio": 2.0, "depth": 1}, 24, 1), ({"mlp_ratio": 0.01, "depth": 3}, 1, 3)],
)
def test_options_of_vit_set_depth_and_hidden_units(options: dict[str, float], hidden: int, blocks: int) -> None:
    network = build_network("vit", width=12, **options)
    assert network.get_parameter(f"block{blocks}.fc1.weight").shape == (hidden, 12)
    assert names_of(network).count("block") == blocks


def test_attention_equals_torchs() -> None:
    attention = Attention(width=12, heads=3).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    q, k, v = (part.view(2, 5, 3, 4).transpose(1, 2) for part in attention.qkv(x).chunk(3, dim=2))
    mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 5, 12)
    assert torch.allclose(attention(x), attention.proj(mixed))
