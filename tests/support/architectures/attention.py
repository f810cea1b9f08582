"""Transformers: torch's own layers, attention written out, and mixtures of both kinds of axes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.architectures.architecture import Made, seeded


class _TokenClassifier(nn.Module):
    """Embedded tokens with positions, an encoder, and a classifier of the first token."""

    def __init__(self, encoder: nn.Module, width: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(13, width)
        self.position = nn.Parameter(torch.randn(6, width) * 0.3)
        self.encoder = encoder
        self.output = nn.Linear(width, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(self.encoder(self.embedding(tokens) + self.position)[:, 0])  # type: ignore[no-any-return]


def _tokens() -> Tensor:
    return torch.randint(13, (2, 6))


def _encoder(norm_first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 4, 24, activation="gelu", batch_first=True, norm_first=norm_first)
    return nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(16) if norm_first else None, enable_nested_tensor=False)


@seeded
def encoder_post_norm() -> Made:
    """`nn.TransformerEncoder` as of Vaswani et al. 2017."""
    return _TokenClassifier(_encoder(norm_first=False)), _tokens()


@seeded
def encoder_pre_norm() -> Made:
    """The same with layer norm before attention and perceptron."""
    return _TokenClassifier(_encoder(norm_first=True)), _tokens()


class _CrossAttention(nn.Module):
    """`nn.MultiheadAttention` with other sizes for keys and values."""

    def __init__(self, weights: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 12)
        self.attention = nn.MultiheadAttention(12, 3, kdim=7, vdim=6, batch_first=True)
        self.output = nn.Linear(12, 2)
        self.weights = weights

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor | None]:
        mixed, weights = self.attention(self.stem(query), key, value, need_weights=self.weights)
        return self.output(mixed), weights


def _query_key_value() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(2, 4, 5), torch.randn(2, 3, 7), torch.randn(2, 3, 6)


@seeded
def multihead_attention() -> Made:
    """`nn.MultiheadAttention` alone."""
    return _CrossAttention(weights=False), _query_key_value()


@seeded
def attention_weights() -> Made:
    """The mean of the attention weights over the heads is a second output."""
    return _CrossAttention(weights=True), _query_key_value()


class _SelfAttention(nn.Module):
    """`nn.MultiheadAttention` with the sequence first, between linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.output = nn.Linear(5, 12), nn.Linear(12, 3)
        self.attention = nn.MultiheadAttention(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).transpose(0, 1)
        return self.output(self.attention(x, x, x, need_weights=False)[0].mean(0))  # type: ignore[no-any-return]


@seeded
def self_attention() -> Made:
    """One projection for queries, keys and values; fused attention."""
    return _SelfAttention(), torch.randn(2, 5, 5)


class _EinsumAttention(nn.Module):
    """Attention by einsum, with a parameter of three axes for each projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        shape = (heads, width, width // heads)
        self.query, self.key, self.value, self.project = (nn.Parameter(torch.randn(shape) * 0.3) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (torch.einsum("btd,hde->bhte", y, weight) for weight in (self.query, self.key, self.value))
        weights = (torch.einsum("bhqe,bhke->bhqk", q, k) / math.sqrt(q.shape[-1])).softmax(-1)
        return x + torch.einsum("bhqk,bhke,hde->bqd", weights, v, self.project)


@seeded
def einsum_attention() -> Made:
    """Attention written with einsum."""
    return _TokenClassifier(nn.Sequential(_EinsumAttention(16, 4), _EinsumAttention(16, 2))), _tokens()


class _Llama(nn.Module):
    """RMSNorm, rotary positions, grouped key and value heads, SwiGLU (Touvron et al. 2023)."""

    def __init__(self, width: int = 16, heads: int = 4, groups: int = 2, hidden: int = 20) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(width, groups * self.size, bias=False) for _ in range(2))
        self.o_proj = nn.Linear(width, width, bias=False)
        self.gate_proj, self.up_proj = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def _rotated(self, x: Tensor) -> Tensor:
        half = self.size // 2
        steps = torch.arange(x.shape[2], dtype=x.dtype, device=x.device)[:, None]
        angles = steps / 10 ** (torch.arange(half, dtype=x.dtype, device=x.device) / half)
        cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
        return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        y = self.norm1(x)
        q, k, v = (
            project(y).view(n, t, -1, self.size).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        k, v = (part.repeat_interleave(self.heads // self.groups, 1) for part in (self._rotated(k), v))
        mixed = functional.scaled_dot_product_attention(self._rotated(q), k, v, is_causal=True)
        x = x + self.o_proj(mixed.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        return x + self.down_proj(functional.silu(self.gate_proj(y)) * self.up_proj(y))  # type: ignore[no-any-return]


@seeded
def llama() -> Made:
    """Two decoder blocks as of Llama."""
    return _TokenClassifier(nn.Sequential(_Llama(), _Llama())), _tokens()


class _Mixer(nn.Module):
    """A perceptron over the tokens and one over the channels (Tolstikhin et al. 2021)."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, 8), nn.GELU(), nn.Linear(8, tokens))
        self.channels = nn.Sequential(nn.Linear(width, 14), nn.GELU(), nn.Linear(14, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))  # type: ignore[no-any-return]


class _Patches(nn.Module):
    def __init__(self, *blocks: nn.Module, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.blocks = nn.Sequential(*blocks)
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.output(self.norm(self.blocks(x)).mean(1))  # type: ignore[no-any-return]


@seeded
def mlp_mixer() -> Made:
    """Perceptrons over tokens, after a transposition, and over channels."""
    return _Patches(_Mixer(4, 10), _Mixer(4, 10), width=10), torch.randn(2, 3, 8, 8)


class _WindowAttention(nn.Module):
    """Attention in windows of 2×2 tokens, which are cut by reshaping, with a bias for relative positions (Liu et al.
    2021, Swin)."""

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads, self.side = heads, side
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.randn(9, heads))
        rows, columns = torch.arange(4) // 2, torch.arange(4) % 2
        index = (rows[:, None] - rows + 1) * 3 + columns[:, None] - columns + 1
        self.register_buffer("index", index)
        self.mlp = nn.Sequential(nn.Linear(width, 20), nn.GELU(), nn.Linear(20, width))

    def forward(self, x: Tensor) -> Tensor:
        n, _, width = x.shape
        half = self.side // 2
        y = torch.roll(self.norm(x).view(n, self.side, self.side, width), (-1, -1), (1, 2))
        y = y.view(n, half, 2, half, 2, width).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, width)
        q, k, v = self.qkv(y).reshape(len(y), 4, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        scores = scores + self.bias[self.index.view(-1)].view(4, 4, -1).permute(2, 0, 1)  # type: ignore[operator]
        y = self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        y = y.view(n, half, half, 2, 2, width).permute(0, 1, 3, 2, 4, 5).reshape(n, self.side, self.side, width)
        x = x + torch.roll(y, (1, 1), (1, 2)).reshape(n, -1, width)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


@seeded
def swin() -> Made:
    """Shifted windows."""
    blocks = [_WindowAttention(12, 3, 4), _WindowAttention(12, 3, 4)]
    return _Patches(*blocks, width=12), torch.randn(2, 3, 16, 16)


class _ConvNeXt(nn.Module):
    """Depthwise convolution, layer norm over channels, a perceptron, layer scale (Liu et al. 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand, self.project = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.scale = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.project(functional.gelu(self.expand(y)))
        return x + y.permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class _Permuted(nn.Module):
    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.axes)


def _channel_norm(channels: int) -> nn.Module:
    """Layer norm over the channels of images."""
    return nn.Sequential(_Permuted(0, 2, 3, 1), nn.LayerNorm(channels), _Permuted(0, 3, 1, 2))


class _ChannelNorm(nn.LayerNorm):
    """The same, as torchvision has it."""

    def forward(self, x: Tensor) -> Tensor:
        y = functional.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return y.permute(0, 3, 1, 2)


def _convnext(norm: Callable[[int], nn.Module]) -> Made:
    down = [norm(8), nn.Conv2d(8, 12, 2, 2), _ConvNeXt(12)]
    head = [nn.AdaptiveAvgPool2d(1), norm(12), nn.Flatten(), nn.Linear(12, 4)]
    return nn.Sequential(nn.Conv2d(3, 8, 2, 2), norm(8), _ConvNeXt(8), *down, *head), torch.randn(2, 3, 16, 16)


@seeded
def convnext() -> Made:
    """Layer norm over channels, by permutations, and layer scale."""
    return _convnext(_channel_norm)


@seeded
def convnext_torchvision() -> Made:
    """The same with a subclass of layer norm."""
    return _convnext(_ChannelNorm)
