from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from tests.zoo.models.helpers import conv_weights, made, output_of, parameters, weights
from tombola.pruning.mask import Mask
from tombola.zoo.models.vit import Attention


def test_vit_has_2_665_344_weights() -> None:
    network = made("vit")
    block = 192 * 3 * 192 + 192 * 192 + 2 * 192 * 768
    assert conv_weights(network) == 3 * 4 * 4 * 192 == 9_216
    assert weights(network) == 9_216 + 6 * block + 192 * 10 == 2_665_344
    others = 192 + 64 * 192 + 6 * (3 * 192 + 192 + 768 + 192 + 4 * 192) + 2 * 192 + 10
    assert parameters(network) == 2_665_344 + others


def test_all_linear_layers_are_prunable_and_position_embeddings_are_not() -> None:
    names = list(Mask.full(made("vit", depth=1)))
    block = [f"block1.{layer}.weight" for layer in ("attention.qkv", "attention.proj", "fc1", "fc2")]
    assert names == ["tokens.conv.weight", *block, "output.weight"]


@pytest.mark.parametrize(
    ("inputs", "patch", "tokens"), [((3, 32, 32), 4, 64), ((28, 28), 7, 16), ((3, 12, 20), 4, 15), ((8, 8), 8, 1)]
)
def test_an_image_becomes_patches(inputs: tuple[int, ...], patch: int, tokens: int) -> None:
    network = made("vit", inputs=inputs, patch=patch, width=6, depth=1)
    assert network.get_parameter("tokens.position").shape == (tokens, 6)
    assert output_of(network, inputs).shape == (2, 10)


@pytest.mark.parametrize(
    ("options", "hidden", "blocks"),
    [({"mlp_ratio": 2.0, "depth": 1}, 24, 1), ({"mlp_ratio": 0.01, "depth": 3}, 1, 3)],
)
def test_options_set_depth_and_hidden_units(options: dict[str, float], hidden: int, blocks: int) -> None:
    network = made("vit", width=12, **options)
    assert network.get_parameter(f"block{blocks}.fc1.weight").shape == (hidden, 12)
    assert sum(name.startswith("block") for name, _ in network.named_children()) == blocks


def test_attention_is_that_of_torch() -> None:
    attention = Attention(width=12, heads=3).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    q, k, v = (part.view(2, 5, 3, 4).transpose(1, 2) for part in attention.qkv(x).chunk(3, dim=2))
    mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 5, 12)
    assert torch.allclose(attention(x), attention.proj(mixed))


def test_position_embeddings_are_drawn_narrowly() -> None:
    position = made("vit", width=192).get_parameter("tokens.position").detach()
    assert position.std().item() == pytest.approx(0.02, rel=5 / math.sqrt(2 * position.numel()))


def test_the_order_of_patches_matters() -> None:
    network = made("vit", width=12, depth=1).eval()
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(network(x), network(x.flip(3)), atol=1e-6)
