"""Random networks for property tests, and random sparsity."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from tombola.pruning.mask import prunable
from tombola.zoo.models.resnet import Subsample

ACTIVATIONS: list[Callable[[], nn.Module]] = [nn.ReLU, nn.Sigmoid, nn.GELU, nn.LeakyReLU, nn.Hardswish, nn.Identity]


class Residual(nn.Module):
    """ReLU of the sum of `body` and `shortcut`, applied to the same input."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


class Concatenated(nn.Module):
    """The concatenated channels of two branches and of their input."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one = one
        self.other = other

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), x, self.other(x)], 1)


class MeanPixel(nn.Module):
    """(N, C, H, W) -> (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


@st.composite
def networks(
    draw: st.DrawFn, padding_modes: Sequence[str] = ("zeros",), dtype: torch.dtype = torch.float32
) -> tuple[nn.Module, Tensor]:
    """A network in evaluation mode, batch norm with random statistics, and a batch of one to three examples."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw(st.integers(0, 2**16), label="seed"))
        network, inputs = draw(st.one_of(perceptrons(), convolutions(padding_modes)))
        example = torch.randn(draw(st.integers(1, 3)), *inputs, dtype=dtype)
        randomise(network)
    return network.to(dtype).eval(), example


@st.composite
def perceptrons(draw: st.DrawFn) -> tuple[nn.Sequential, tuple[int, ...]]:
    """A sequence of linear layers, and the shape of an example."""
    inputs = draw(st.sampled_from([(5,), (3, 4), (2, 3, 3)]))
    layers: list[nn.Module] = [nn.Flatten()] if len(inputs) > 1 else []
    return nn.Sequential(*layers, *draw(_head(math.prod(inputs)))), inputs


@st.composite
def convolutions(draw: st.DrawFn, padding_modes: Sequence[str] = ("zeros",)) -> tuple[nn.Sequential, tuple[int, ...]]:
    """A sequence of convolutions, poolings, residual blocks and concatenations, and the shape of an example."""
    inputs = (draw(st.integers(1, 3)), draw(st.integers(4, 7)), draw(st.integers(4, 7)))
    layers: list[nn.Module] = []
    shape = inputs
    for _ in range(draw(st.integers(1, 4))):
        part = draw(
            st.one_of([make(shape, padding_modes) for make in (_conv, _pool, _residual, branches, _depthwise)])
        )
        shape = output_shape(part, shape)
        layers.append(part)
    ways: list[list[nn.Module]] = [[nn.Flatten()], [nn.AdaptiveAvgPool2d(1), nn.Flatten()], [MeanPixel()]]
    way = draw(st.sampled_from(range(len(ways))))
    features = math.prod(shape) if way == 0 else shape[0]
    return nn.Sequential(*layers, *ways[way], *draw(_head(features))), inputs


Shape = tuple[int, ...]


def output_shape(part: nn.Module, shape: Shape) -> Shape:
    return tuple(part.eval()(torch.zeros(1, *shape)).shape[1:])


@st.composite
def _head(draw: st.DrawFn, features: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(0, 2))):
        width = draw(st.integers(1, 8))
        layers.append(nn.Linear(features, width, bias=draw(st.booleans())))
        if draw(st.booleans()):
            layers.append(nn.BatchNorm1d(width))
        layers += [draw(st.sampled_from(ACTIVATIONS))(), nn.Dropout(0.5)]
        features = width
    return [*layers, nn.Linear(features, draw(st.integers(1, 4)), bias=draw(st.booleans()))]


@st.composite
def _conv(draw: st.DrawFn, shape: Shape, padding_modes: Sequence[str]) -> nn.Sequential:
    channels, *sides = shape
    mode = draw(st.sampled_from(list(padding_modes)))
    dilation = draw(st.integers(1, 2))
    padding = draw(st.integers(0, min(2, *(side - 1 for side in sides)) if mode != "zeros" else 2))
    reach = [(side + 2 * padding - 1) // dilation + 1 for side in sides]
    kernel = draw(st.tuples(*(st.integers(1, min(3, most)) for most in reach)))
    conv = nn.Conv2d(
        channels, draw(st.integers(1, 6)), kernel, draw(st.integers(1, 2)), padding, dilation,
        bias=draw(st.booleans()), padding_mode=mode,
    )  # fmt: skip
    norm = [nn.BatchNorm2d(conv.out_channels)] if draw(st.booleans()) else []
    return nn.Sequential(conv, *norm, draw(st.sampled_from(ACTIVATIONS))())


@st.composite
def _pool(draw: st.DrawFn, shape: Shape, padding_modes: Sequence[str]) -> nn.Module:  # noqa: ARG001
    kernel = draw(st.integers(1, min(3, *shape[1:])))
    stride, padding = draw(st.integers(1, 2)), draw(st.integers(0, kernel // 2))
    ceil_mode = draw(st.booleans())
    if draw(st.booleans()):
        return nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil_mode)
    return nn.AvgPool2d(kernel, stride, padding, ceil_mode=ceil_mode, count_include_pad=draw(st.booleans()))


@st.composite
def _residual(draw: st.DrawFn, shape: Shape, padding_modes: Sequence[str]) -> nn.Module:  # noqa: ARG001
    before = shape[0]
    kind = draw(st.sampled_from(["identity", "projection", "subsample"]))
    stride = 1 if kind == "identity" else 2
    after = before if kind == "identity" else before + draw(st.integers(0, 3))
    middle = draw(st.integers(1, 5))
    body = nn.Sequential(
        nn.Conv2d(before, middle, 3, stride, padding=1, bias=False), nn.BatchNorm2d(middle), nn.ReLU(),
        nn.Conv2d(middle, after, 3, padding=1, bias=False), nn.BatchNorm2d(after),
    )  # fmt: skip
    shortcuts: dict[str, Callable[[], nn.Module]] = {
        "identity": nn.Identity,
        "projection": lambda: nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)),
        "subsample": lambda: Subsample(after),
    }
    return Residual(body, shortcuts[kind]())


@st.composite
def branches(draw: st.DrawFn, shape: Shape, padding_modes: Sequence[str] = ()) -> nn.Module:  # noqa: ARG001
    one = nn.Conv2d(shape[0], draw(st.integers(1, 3)), 3, padding=1)
    conv = nn.Conv2d(shape[0], draw(st.integers(1, 3)), 1, bias=draw(st.booleans()))
    other = draw(st.sampled_from([conv, nn.Identity(), nn.MaxPool2d(3, 1, 1)]))
    return Concatenated(nn.Sequential(one, *draw(st.sampled_from([[], [nn.ReLU()]]))), other)


@st.composite
def _depthwise(draw: st.DrawFn, shape: Shape, padding_modes: Sequence[str]) -> nn.Module:  # noqa: ARG001
    times = draw(st.integers(1, 2))
    conv = nn.Conv2d(shape[0], times * shape[0], 3, padding=1, groups=shape[0], bias=draw(st.booleans()))
    return nn.Sequential(conv, draw(st.sampled_from(ACTIVATIONS))())


@torch.no_grad()
def randomise(network: nn.Module) -> nn.Module:
    """Draw biases and the state of batch norm from torch's generator, in place. Returns the network."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.normal_(1, 0.5)
            module.bias.normal_()
        elif isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            module.bias.normal_(0, 0.3)
    return network


@torch.no_grad()
def sparsify(network: nn.Module, density: float, seed: int) -> nn.Module:
    """Prune each layer randomly to this density, in place; some also lose whole rows or columns, or all weights.
    Returns the network."""
    rng = np.random.default_rng(seed)
    parameters = dict(network.named_parameters())
    for name in prunable(network):
        weight = parameters[name]
        kept = rng.permutation(weight.numel()).reshape(weight.shape) < density * weight.numel()
        for axis in (0, 1):
            if rng.random() < 0.3:
                goes = rng.random(weight.shape[axis]) < 0.5
                kept &= ~goes.reshape([-1 if one == axis else 1 for one in range(weight.dim())])
        if rng.random() < 0.05:
            kept[:] = False
        weight.masked_fill_(~torch.from_numpy(kept), 0)
    return network
