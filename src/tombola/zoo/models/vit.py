"""A small vision transformer (Dosovitskiy et al. 2021, "An image is worth 16x16 words")."""

from __future__ import annotations

import math

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn, zeros
from torch.nn import functional

from tombola.utils.errors import InputError
from tombola.zoo.models.image_shape import ImageShape, scale_width
from tombola.zoo.models.initialise import Initialisation, initialise


class Attention(nn.Module):
    """Multi-head self-attention made of two linear layers, so that all weights can be pruned: (N, T, D) -> (N, T, D).

    It does not call torch's fused attention, which has no batching rule on a CPU, so that runs could not be stacked,
    and whose gradients on a GPU repeat only up to rounding. With few tokens the fused one is hardly faster.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each [N, heads, T, D / heads]
        attention = (q @ k.transpose(2, 3) / math.sqrt(q.shape[3])).softmax(3)  # [N, heads, T, T]
        return self.proj((attention @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class EncoderBlock(nn.Module):
    """Attention and a two-layer perceptron, each with layer norm before it and a shortcut around it."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))  # type: ignore[no-any-return]


class PatchEmbedding(nn.Module):
    """A vector for each patch, from its pixels and its position: (N, C, H, W) -> (N, patches, width)."""

    def __init__(self, channels: int, patches: int, patch: int, width: int) -> None:
        super().__init__()
        self.position = nn.Parameter(nn.init.trunc_normal_(zeros(patches, width), std=0.02))
        self.conv = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).flatten(2).transpose(1, 2) + self.position  # type: ignore[no-any-return]


class MeanPool(nn.Module):
    """The mean over all patches: (N, patches, width) -> (N, width)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def vit(
    inputs: tuple[int, ...],
    classes: int,
    patch: PositiveInt = 4,
    width: PositiveInt = 192,
    depth: PositiveInt = 6,
    heads: PositiveInt = 3,
    mlp_ratio: PositiveFloat = 4.0,
    init: Initialisation = "glorot-normal",
) -> nn.Sequential:
    """A vision transformer with learned position embeddings and mean pooling: 2,665,344 weights on CIFAR-10.

    `patch`: pixels a side of a patch. `width`: the length of a patch's vector. `depth`: the number of blocks.
    `mlp_ratio`: hidden units of a block's perceptron, divided by `width`. Position embeddings are drawn from a normal
    distribution with standard deviation 0.02; they are never pruned.
    Raises `InputError` if `patch` does not divide the image or `heads` does not divide the width.
    """
    images = ImageShape.of(inputs, "vit", min_side=patch)
    if images.height % patch or images.width % patch:
        raise InputError(f"model.patch: Input should divide {images.height}×{images.width} pixels, not {patch}")
    if width % heads:
        raise InputError(f"model.heads: Input should divide the width, {width}, not {heads}")
    patches = (images.height // patch) * (images.width // patch)
    layers = images.first_layers()
    layers["tokens"] = PatchEmbedding(images.channels, patches, patch, width)
    for block in range(depth):
        layers[f"block{block + 1}"] = EncoderBlock(width, heads, scale_width(width, mlp_ratio))
    layers["norm"] = nn.LayerNorm(width)
    layers["average"] = MeanPool()
    layers["output"] = nn.Linear(width, classes)
    return initialise(nn.Sequential(layers), init)
