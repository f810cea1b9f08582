"""The steps of random graphs: modules that take one or two batches of images (N, C, H, W) and return one.

Each is made by a function of a source of choices and of the number of channels of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.architectures.blocks import SqueezeExcite, shuffle

ACTIVATIONS: list[Callable[[], nn.Module]] = [
    nn.ReLU, nn.PReLU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Sigmoid, nn.LeakyReLU, nn.Identity,
]  # fmt: skip


def divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def normalised(choice: Random, conv: nn.Module, channels: int) -> nn.Sequential:
    """A layer, a norm or none, and an activation."""
    groups = choice.choice(divisors(channels)[:-1] or [1])
    norm: list[nn.Module] = [nn.BatchNorm2d(channels), nn.GroupNorm(groups, channels)]
    act = nn.PReLU(channels) if choice.random() < 0.15 else choice.choice(ACTIVATIONS)()
    layers = [conv, *choice.choices([[norm[0]], [norm[1]], []], [3, 1, 2])[0], act]
    return nn.Sequential(*layers)


def conv(choice: Random, before: int, after: int | None = None, stride: int | None = None) -> nn.Sequential:
    """A convolution with any number of groups."""
    after = after or choice.choice([4, 6, 8, 12])
    groups = choice.choice([1, 1, 1, choice.choice([d for d in divisors(before) if after % d == 0])])
    kernel = choice.choice([1, 3])
    stride = stride or choice.choice([1, 1, 1, 2])
    mode: Literal["zeros", "circular"] = choice.choice(["zeros", "zeros", "circular"])
    bias = choice.random() < 0.5
    layer = nn.Conv2d(
        before,
        after,
        kernel,
        stride,
        kernel // 2,
        groups=groups,
        bias=bias,
        padding_mode=mode if kernel > 1 else "zeros",
    )
    return normalised(choice, layer, after)


def depthwise(choice: Random, channels: int) -> nn.Module:
    """One or two outputs for each channel."""
    after = channels * choice.choice([1, 1, 2])
    return normalised(
        choice, nn.Conv2d(channels, after, 3, padding=1, groups=channels, bias=choice.random() < 0.5), after
    )


def transposed(choice: Random, channels: int) -> nn.Module:
    """A transposed convolution that doubles the size."""
    after = choice.choice([4, 6, 8])
    groups = choice.choice([1, 1, choice.choice([d for d in divisors(channels) if after % d == 0])])
    return normalised(choice, nn.ConvTranspose2d(channels, after, 2, 2, groups=groups), after)


def up_sampling(choice: Random, channels: int) -> nn.Module:
    """Up-sampling, or pixel shuffle where four divides the channels."""
    ways: list[nn.Module] = [nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2, mode="bilinear")]
    return nn.PixelShuffle(2) if channels % 4 == 0 and choice.random() < 0.5 else choice.choice(ways)


def pooling(choice: Random, channels: int) -> nn.Module:  # noqa: ARG001
    return choice.choice([nn.MaxPool2d(2), nn.AvgPool2d(2), nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 2, 1)])


def squeeze_excite(choice: Random, channels: int) -> nn.Module:
    return SqueezeExcite(channels, choice.choice([2, 3, 4]), gate=choice.choice([nn.Sigmoid, nn.Hardsigmoid]))


class Sum(nn.Module):
    """The sum, or the product with a gate, of two batches."""

    def __init__(self, gated: bool) -> None:
        super().__init__()
        self.gated = gated

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x * torch.sigmoid(y) if self.gated else x + y


class Concatenation(nn.Module):
    def forward(self, *parts: Tensor) -> Tensor:
        return torch.cat(parts, 1)


class Residual(nn.Module):
    """A block around which the input goes."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + x)


def residual(choice: Random, channels: int) -> nn.Module:
    middle = choice.choice([3, 4, 6])
    return Residual(nn.Sequential(conv(choice, channels, middle, 1), conv(choice, middle, channels, 1)))


class Shuffled(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return shuffle(x, self.groups)


def shuffled(choice: Random, channels: int) -> nn.Module:
    return Shuffled(choice.choice(divisors(channels)))


class Split(nn.Module):
    """Separates the channels in two by `chunk`, `split` or slicing; changes one part, and concatenates both in the
    other order, or gates one with the other."""

    def __init__(self, at: int, way: str, body: nn.Module | None) -> None:
        super().__init__()
        self.at, self.way = at, way
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "chunk":
            one, other = x.chunk(2, 1)
        elif self.way == "split":
            one, other = x.split([self.at, x.shape[1] - self.at], 1)
        else:
            one, other = x[:, : self.at], x[:, self.at :]
        if self.body is None:
            return one * torch.sigmoid(other)
        return torch.cat([self.body(other), one], 1)


def split(choice: Random, channels: int) -> nn.Module:
    """Where channels can be halved, also by `chunk` or gating."""
    even = channels % 2 == 0
    way = choice.choice(["chunk", "split", "slice"] if even else ["split", "slice"])
    if even and choice.random() < 0.3:
        return Split(channels // 2, way, None)
    at = channels // 2 if way == "chunk" else choice.randint(1, channels - 1)
    return Split(at, way, conv(choice, channels - at, stride=1))


class Scaled(nn.Module):
    """Layer scale: a factor for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale[:, None, None]


class Padded(nn.Module):
    """Channels of zeros are added."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x, (0, 0, 0, 0, self.before, self.after))


class OverPixels(nn.Module):
    """A block for tokens (N, T, D), applied to the pixels and, with layer norm before it, added to the input."""

    def __init__(self, width: int, block: nn.Module) -> None:
        super().__init__()
        self.norm, self.block = nn.LayerNorm(width), block

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return (tokens + self.block(self.norm(tokens))).transpose(1, 2).reshape(x.shape)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """`nn.MultiheadAttention`, or attention from one projection of queries, keys and values."""

    def __init__(self, width: int, heads: int, torchs: bool) -> None:
        super().__init__()
        self.heads = heads
        self.fused = nn.MultiheadAttention(width, heads, batch_first=True) if torchs else None
        if not torchs:
            self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        if self.fused is not None:
            return self.fused(x, x, x, need_weights=False)[0]  # type: ignore[no-any-return]
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def attention(choice: Random, channels: int) -> nn.Module:
    return OverPixels(channels, Attention(channels, choice.choice(divisors(channels)), choice.random() < 0.5))


def perceptron(choice: Random, channels: int) -> nn.Module:
    """Two linear layers for each pixel."""
    hidden = choice.choice([4, 6, 10])
    return OverPixels(channels, nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels)))


def scaled(choice: Random, channels: int) -> nn.Module:  # noqa: ARG001
    return Scaled(channels)


def padded(choice: Random, channels: int) -> nn.Module:  # noqa: ARG001
    return Padded(choice.randint(0, 1), choice.randint(1, 2))


STEPS: Sequence[tuple[int, Callable[[Random, int], nn.Module]]] = [
    (6, conv), (2, depthwise), (3, residual), (2, squeeze_excite), (3, split), (1, shuffled), (2, pooling),
    (2, up_sampling), (1, transposed), (2, attention), (1, perceptron), (1, scaled), (1, padded),
]  # fmt: skip
"""Those with one input, and how often each is chosen."""
