"""Networks of the kinds that users report of pruners that follow dependencies; each names an issue of Torch-Pruning's
repository, github.com/VainF/Torch-Pruning, written anew and small."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.architectures.architecture import Made, seeded
from tests.support.architectures.blocks import conv_bn, head, images


class _Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(conv_bn(3, 8, 1, act=nn.GELU), conv_bn(8, 8, 1, act=None))
        self.second = conv_bn(16, 6, 1)
        self.output = head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.output(self.second(torch.cat([x, x], dim=1)))  # type: ignore[no-any-return]


@seeded
def concatenated_with_itself() -> Made:
    """Issue 146."""
    return _Doubled(), images()


class _WideAndDeep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.deep = nn.Sequential(
            nn.Linear(6, 12),
            nn.BatchNorm1d(12),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(12, 8),
            nn.ReLU(),
            nn.Linear(8, 1),
        )
        self.wide = nn.Linear(6, 3)
        self.output = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(x.shape[0], -1)
        return torch.sigmoid(self.output(torch.concat([self.wide(x), self.deep(x)], dim=-1)))


@seeded
def wide_and_deep() -> Made:
    """Issue 481: what is concatenated is not tied to each other; a layer with a single unit is among it."""
    return _WideAndDeep(), torch.randn(2, 2, 3)


class _Split(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(conv_bn(3, 6, 1), conv_bn(6, 16, 1))
        self.shared, self.other = conv_bn(4, 6, 1), conv_bn(8, 6, 1)
        self.output = head(6)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.shared[0].in_channels, self.other[0].in_channels
        first, second, third = torch.split(self.first(x), [one, one, two], dim=1)
        return self.output(self.shared(first) * self.shared(second) + self.other(third))  # type: ignore[no-any-return]


@seeded
def split_by_layers() -> Made:
    """The test `test_split.py` of that repository: sizes of a split are those of the layers that read its parts."""
    return _Split(), images()


class _HeadNorm(nn.Module):
    """RMS norm, written out, of the features of a head."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class _NormedAttention(nn.Module):
    def __init__(self, width: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.norm = nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q_norm, self.k_norm = _HeadNorm(self.size), _HeadNorm(self.size)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, t, 3, self.heads, self.size).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v)
        return x + self.proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@seeded
def query_key_norm() -> Made:
    """Issue 524: queries and keys are unbound and normalised."""
    layers = [nn.Linear(5, 12), _NormedAttention(), _NormedAttention(), nn.LayerNorm(12), nn.Linear(12, 3)]
    return nn.Sequential(*layers), torch.randn(2, 4, 5)


class _Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 32)
        self.up1, self.up2 = nn.ConvTranspose2d(8, 6, 4, 2, 1), nn.ConvTranspose2d(6, 3, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.linear(x)).view(-1, self.up1.in_channels, 2, 2)
        return self.up2(functional.relu(self.up1(x)))  # type: ignore[no-any-return]


@seeded
def features_as_images() -> Made:
    """Issue 125: the outputs of a linear layer become pixels of channels."""
    return _Decoder(), torch.randn(2, 5)


@seeded
def flattened_sequence() -> Made:
    """Issue 451: 1-d convolutions, flattened."""
    convs = [nn.Conv1d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv1d(8, 6, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*convs, nn.Flatten(), nn.Linear(24, 2)), torch.randn(2, 1, 4)


class _Stacked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(conv_bn(3, 6) for _ in range(3))
        self.weights = nn.Parameter(torch.randn(3))
        self.output = head(6)

    def forward(self, x: Tensor) -> Tensor:
        stacked = torch.stack([branch(x) for branch in self.branches], dim=1)
        return self.output((stacked * self.weights.softmax(0).view(1, 3, 1, 1, 1)).sum(1))  # type: ignore[no-any-return]


@seeded
def stacked_branches() -> Made:
    """Issue 100: stacking ties branches; they are weighted and summed up, as in selective kernels."""
    return _Stacked(), images()


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 8, 3, padding=1)
        self.lstm = nn.LSTM(8, 6, batch_first=True)
        self.output = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3))

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(torch.relu(self.conv(x)).transpose(1, 2))
        return self.output(states[:, -1])  # type: ignore[no-any-return]


@seeded
def recurrent() -> Made:
    """A layer that stays whole, between others that do not."""
    return _Recurrent(), torch.randn(2, 2, 7)


class _Attended(nn.Module):
    """Channel and spatial attention, which take means and maxima over pixels and over channels (CBAM, Woo et al.
    2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(channels, 4), nn.ReLU(), nn.Linear(4, channels))
        self.spatial = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3))))
        x = x * gate[..., None, None]
        maps = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return x * torch.sigmoid(self.spatial(maps))


@seeded
def channel_and_spatial_attention() -> Made:
    """Means and maxima over the channels keep the channels that they read whole; the gate's hidden units go."""
    return nn.Sequential(conv_bn(3, 8), conv_bn(8, 8), _Attended(8), conv_bn(8, 6), head(6)), images()


class _SizesInCode(nn.Module):
    """A literal number of channels, and the width of the stream taken for that of all heads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Linear(5, 24), nn.Conv2d(6, 12, 1)
        self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)
        self.output = nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(torch.relu(self.stem(x)).view(-1, 6, 2, 2)).flatten(2).transpose(1, 2)
        n, t, width = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, 3, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, width)
        return self.output((x + self.proj(mixed)).mean(1))  # type: ignore[no-any-return]


@seeded
def sizes_in_code() -> Made:
    """What cannot become smaller without another code; everything else can."""
    return _SizesInCode(), torch.randn(2, 5)
