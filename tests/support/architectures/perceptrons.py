"""Networks of linear layers: heads, tied weights, towers that are called twice, gates; and those for sequences and
volumes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.architectures.architecture import Made, seeded


@seeded
def mlp() -> Made:
    """A perceptron with two hidden layers."""
    layers = [nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 4)]
    return nn.Sequential(*layers), torch.randn(2, 6)


class _ActorCritic(nn.Module):
    """A body of layers, a policy and a value; the heads are defined before the body."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3))
        self.value = nn.Linear(12, 1)
        self.body = nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return self.policy(features).log_softmax(-1), self.value(features).squeeze(-1)


@seeded
def actor_critic() -> Made:
    """Two outputs."""
    return _ActorCritic(), torch.randn(2, 5)


class _ClassifierFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(10, 4)
        self.second = nn.Conv2d(6, 10, 3, padding=1)
        self.first = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3)))  # type: ignore[no-any-return]


@seeded
def classifier_first() -> Made:
    """Layers defined in the opposite order of their use."""
    return _ClassifierFirst(), torch.randn(2, 3, 8, 8)


class _TiedAutoencoder(nn.Module):
    """The decoder's weights are those of the encoder, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 12), nn.Linear(12, 6)
        self.bias1, self.bias2 = nn.Parameter(torch.zeros(12)), nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        code = torch.relu(self.second(torch.relu(self.first(x))))
        hidden = torch.relu(functional.linear(code, self.second.weight.t(), self.bias1))
        return functional.linear(hidden, self.first.weight.t(), self.bias2)


@seeded
def tied_autoencoder() -> Made:
    """`functional.linear` with transposed weights."""
    return _TiedAutoencoder(), torch.randn(2, 8)


class _Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(24, 8), nn.ReLU(),
        )  # fmt: skip
        self.compare = nn.Sequential(nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 1))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return self.compare(torch.cat([self.tower(one), self.tower(other)], -1))  # type: ignore[no-any-return]


@seeded
def siamese() -> Made:
    """One tower called for two inputs; its outputs are concatenated."""
    return _Siamese(), (torch.randn(2, 2, 8, 8), torch.randn(2, 2, 8, 8))


class _Recursive(nn.Module):
    """The same block applied three times to a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 10)
        self.block = nn.Sequential(nn.Linear(10, 14), nn.GELU(), nn.Linear(14, 10))
        self.output = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = x + self.block(x)
        return self.output(x)  # type: ignore[no-any-return]


@seeded
def shared_block() -> Made:
    """A residual block whose weights are shared between depths (as of ALBERT)."""
    return _Recursive(), torch.randn(2, 5)


class _SharedEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.tower = nn.Sequential(nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 6))

    def forward(self, query: Tensor, items: Tensor) -> Tensor:
        one, others = self.tower(self.embedding(query).mean(1)), self.tower(self.embedding(items))
        return (one.unsqueeze(1) * others).sum(-1)  # type: ignore[no-any-return]


@seeded
def two_towers() -> Made:
    """Token ids, one embedding table and one tower for queries and items; scores are inner products."""
    return _SharedEmbedding(), (torch.randint(11, (2, 4)), torch.randint(11, (2, 3)))


class _Highway(nn.Module):
    """A mixture of the input and of its transformation, by a gate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.transform, self.gate = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x))
        return gate * torch.relu(self.transform(x)) + (1 - gate) * x  # type: ignore[no-any-return]


@seeded
def highway() -> Made:
    """Gates tie both layers to the stream (Srivastava et al. 2015)."""
    return nn.Sequential(nn.Linear(6, 8), _Highway(8), _Highway(8), nn.Linear(8, 3)), torch.randn(2, 6)


class _Gated(nn.Module):
    """One layer computes values and gates; `chunk` separates them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.both, self.project = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.both(x).chunk(2, dim=-1)
        return x + self.project(value * functional.gelu(gate))  # type: ignore[no-any-return]


@seeded
def gated_mlp() -> Made:
    """Gated linear units, by `chunk` and by `nn.GLU` (Dauphin et al. 2017; Shazeer 2020)."""
    glu = [nn.Linear(8, 12), nn.GLU(), nn.Linear(6, 3)]
    return nn.Sequential(nn.Linear(6, 8), _Gated(8, 10), _Gated(8, 6), *glu), torch.randn(2, 6)


class _GatedConv(nn.Module):
    """A dilated causal convolution, of which half the channels gate the others; a residual and a skip output."""

    def __init__(self, channels: int, hidden: int, dilation: int) -> None:
        super().__init__()
        self.hidden, self.pad = hidden, dilation
        self.conv = nn.Conv1d(channels, 2 * hidden, 2, dilation=dilation)
        self.residual, self.skip = nn.Conv1d(hidden, channels, 1), nn.Conv1d(hidden, 6, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(functional.pad(x, (self.pad, 0)))
        y = torch.tanh(y[:, : self.hidden]) * torch.sigmoid(y[:, self.hidden :])
        return x + self.residual(y), self.skip(y)


class _WaveNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(2, 8, 1)
        self.blocks = nn.ModuleList(_GatedConv(8, 5, dilation) for dilation in (1, 2, 4))
        self.output = nn.Sequential(nn.ReLU(), nn.Conv1d(6, 6, 1), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.stem(x), torch.zeros(())
        for block in self.blocks:
            x, skip = block(x)
            total = total.to(skip) + skip
        return self.output(total)  # type: ignore[no-any-return]


@seeded
def wavenet() -> Made:
    """1-d convolutions; channels are sliced (van den Oord et al. 2016)."""
    return _WaveNet(), torch.randn(2, 2, 16)


@seeded
def volumes() -> Made:
    """3-d convolutions with batch norm, pooling, a transposed one, and flattening."""
    layers = [
        nn.Conv3d(1, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU(), nn.MaxPool3d(2),
        nn.Conv3d(6, 6, 3, padding=1, groups=6), nn.Conv3d(6, 8, 1), nn.PReLU(8),
        nn.ConvTranspose3d(8, 4, 2, 2), nn.BatchNorm3d(4), nn.ReLU(), nn.AvgPool3d(2),
        nn.Flatten(), nn.Linear(4 * 8, 6), nn.ReLU(), nn.Linear(6, 3),
    ]  # fmt: skip
    return nn.Sequential(*layers), torch.randn(2, 1, 4, 4, 4)
