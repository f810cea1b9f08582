"""Random networks that the sparse runtime supports, and their programs."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.support.random_networks import (
    Concatenated,
    MeanPixel,
    Residual,
    Shape,
    branches,
    output_shape,
    randomise,
    sparsify,
)
from tombola.exports.runtime.memory_layout import dense_products, program_of
from tombola.exports.runtime.network import SparseNetwork
from tombola.exports.runtime.program import Program
from tombola.kernels.plans.plan import Plan
from tombola.kernels.plans.planner import plan_of
from tombola.kernels.plans.steps import graph_of
from tombola.zoo.models.resnet import Subsample

BATCHES = (1, 2, 15, 16, 17, 32, 33, 64, 65, 100)
"""Around the numbers of examples that kernels compute side by side."""


class Sum(nn.Module):
    """The sum of two parts applied to the same input, without ReLU. Without parts, twice the input."""

    def __init__(self, one: nn.Module | None = None, other: nn.Module | None = None) -> None:
        super().__init__()
        self.one, self.other = one or nn.Identity(), other or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) + self.other(x)


def plan_for(network: nn.Module, example: Tensor) -> Plan:
    return plan_of(graph_of(network.eval(), example))


def program_for(network: nn.Module, example: Tensor, dense: Collection[int] | bool = False) -> Program:
    """The program of a network, with these products dense, or all possible ones."""
    plan = plan_for(network, example)
    possible = dense_products(plan).keys()
    return program_of(plan, set(possible) if dense is True else set(possible) & set(dense or ()))


@torch.no_grad()
def expected_outputs(network: nn.Module, x: Tensor) -> Tensor:
    """The outputs of `network` in double precision."""
    answers: Tensor = copy.deepcopy(network).eval().double()(x.double())
    return answers


def scale_of(network: nn.Module, x: Tensor) -> float:
    """The largest absolute input or output of any layer: rounding errors are relative to it."""
    largest = [expected_outputs(network, x).abs().max()]
    watched = copy.deepcopy(network)
    for module in watched.modules():
        module.register_forward_hook(lambda _, inputs, out: largest.extend(one.abs().max() for one in (*inputs, out)))
    expected_outputs(watched, x)
    return float(max(largest))


def assert_close(found: Tensor, expected: Tensor, scale: float) -> None:
    """Within 1e-5 of `scale`."""
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    off = float((found.double() - expected).abs().max())
    assert off <= 1e-5 * scale, f"{off} of {scale}"


def bits(x: Tensor) -> bytes:
    return x.detach().contiguous().numpy().tobytes()


EXAMPLE = torch.ones(1, 2, 8, 7)


def dense_network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6))
    network = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), Residual(body, nn.Identity()), nn.MaxPool2d(3, 2, 1),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(24, 5),
    )  # fmt: skip
    sparsify(randomise(network), 0.5, seed=1)
    return network.eval()


def runtime(threads: int = 1, dense: bool = False, seed: int = 0) -> SparseNetwork:
    return SparseNetwork(program_for(dense_network(seed), EXAMPLE, dense), threads)


@functools.cache
def programs() -> list[Program]:
    """Programs of linear layers and of images, with every kind of step: sparse, dense and mixed."""
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    parallel = Concatenated(nn.Conv2d(3, 2, (1, 3), padding=(0, 1)), nn.MaxPool2d(3, 1, 1))
    pictures = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), Residual(body, nn.Identity()), parallel, nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.ReLU(), nn.Conv2d(8, 4, 2, 2, dilation=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip
    made = []
    for network, example in ((mlp, torch.ones(1, 5)), (pictures, torch.ones(1, 2, 6, 5))):
        sparsify(randomise(network), 0.5, seed=1)
        made += [program_for(network, example, dense) for dense in (False, True, {0, 4})]
    return made


@st.composite
def supported_networks(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A sparse network in evaluation mode with supported operations only, and a batch of two examples."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw(st.integers(0, 2**16), label="seed"))
        shape: Shape = draw(st.one_of(st.tuples(st.integers(1, 9)), st.tuples(*[st.integers(4, 8)] * 2), images()))
        example = torch.randn(2, *shape)
        network = nn.Sequential(*draw(_parts(shape)))
        sparsify(randomise(network), draw(st.sampled_from([0.02, 0.2, 0.6, 1.0])), draw(st.integers(0, 99)))
    return network.eval(), example


def images() -> st.SearchStrategy[Shape]:
    return st.tuples(st.integers(1, 4), st.integers(4, 9), st.integers(4, 9))


@st.composite
def _parts(draw: st.DrawFn, shape: Shape) -> list[nn.Module]:
    parts: list[nn.Module] = []
    if len(shape) == 2:
        if draw(st.booleans()):
            return [nn.ReLU(), nn.Flatten(), *draw(_head(math.prod(shape)))]
        parts = [nn.Unflatten(1, (1, shape[0]))]
    if len(shape) > 1:
        shape = output_shape(nn.Sequential(*parts), shape)
        for _ in range(draw(st.integers(0, 4))):
            part = draw(st.sampled_from(PARTS).flatmap(lambda make, shape=shape: make(shape)))
            shape, parts = output_shape(part, shape), [*parts, part]
        mean = [MeanPixel(), nn.BatchNorm1d(shape[0])]
        end: list[nn.Module] = draw(st.sampled_from([[], [nn.Flatten()], [nn.Flatten(), nn.ReLU()], mean]))
        if not end:
            return parts or [nn.Identity()]
        parts += end
        shape = output_shape(nn.Sequential(*end), shape)
    return [*parts, *draw(_head(*shape))]


@st.composite
def _head(draw: st.DrawFn, features: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(0, 3))):
        width = draw(st.integers(1, 20))
        linear = nn.Linear(features, width, bias=draw(st.booleans()))
        skip = [Sum(nn.Linear(width, width)), Sum(), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(width)]
        layers += [linear, *draw(st.lists(st.sampled_from(skip), max_size=3, unique=True))]
        features = width
    return layers or [nn.Identity()]


@st.composite
def _conv(draw: st.DrawFn, shape: Shape) -> nn.Module:
    channels, *sides = shape
    groups = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    out = groups * draw(st.integers(1, 4))
    dilation = draw(_pair(1, 2))
    padding: Any = draw(_pair(0, 2) | st.just("same"))
    stride = (1, 1) if padding == "same" else draw(_pair(1, 3))
    kernel = []
    for axis, side in enumerate(sides):
        most = 4 if padding == "same" else (side + 2 * padding[axis] - 1) // dilation[axis] + 1
        kernel.append(draw(st.integers(1, min(4, most))))
    conv = nn.Conv2d(channels, out, tuple(kernel), stride, padding, dilation, groups, bias=draw(st.booleans()))
    return nn.Sequential(conv, *draw(_behind(out)))


@st.composite
def _behind(draw: st.DrawFn, channels: int) -> list[nn.Module]:
    """Batch norm and ReLU, in any order and number."""
    possible = [nn.BatchNorm2d(channels), nn.ReLU(), nn.Dropout(0.5)]
    return draw(st.lists(st.sampled_from(possible), max_size=3, unique=True))


@st.composite
def _max_pool(draw: st.DrawFn, shape: Shape) -> nn.Module:
    kernel = [draw(st.integers(1, min(3, side))) for side in shape[1:]]
    padding = [draw(st.integers(0, size // 2)) for size in kernel]
    dilation = [
        draw(st.integers(1, 3 if (size - 1) * 3 < side + 2 * pad else 1))
        for size, side, pad in zip(kernel, shape[1:], padding, strict=True)
    ]
    pool = nn.MaxPool2d(
        tuple(kernel), draw(_pair(1, 3)), tuple(padding), tuple(dilation), ceil_mode=draw(st.booleans())
    )
    finite = torch.isfinite(pool(torch.zeros(1, *shape))).all()  # a window may have only padding
    return nn.Sequential(pool if finite else nn.Identity(), *draw(_behind(shape[0])))


@st.composite
def _average_pool(draw: st.DrawFn, shape: Shape) -> nn.Module:
    if draw(st.booleans()):
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), *draw(_behind(shape[0])))
    kernel = [draw(st.integers(1, min(3, side))) for side in shape[1:]]
    padding = tuple(draw(st.integers(0, size // 2)) for size in kernel)
    return nn.Sequential(nn.AvgPool2d(tuple(kernel), draw(_pair(1, 3)), padding), *draw(_behind(shape[0])))


@st.composite
def _added(draw: st.DrawFn, shape: Shape) -> nn.Module:
    """Additions: to the last output, to one with another reader, of an output to itself."""
    channels = shape[0]

    def conv(stride: int = 1, out: int = channels) -> nn.Module:
        return nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)

    ways: list[Callable[[], nn.Module]] = [
        Sum,
        lambda: nn.Sequential(Sum(conv()), nn.BatchNorm2d(channels), nn.ReLU()),
        lambda: Sum(nn.Sequential(conv(), nn.BatchNorm2d(channels)), conv()),
        lambda: Sum(nn.Sequential(conv(), nn.ReLU()), nn.ReLU()),
        lambda: Residual(nn.Sequential(conv(), nn.ReLU(), conv(), nn.BatchNorm2d(channels)), nn.Identity()),
        lambda: Residual(conv(2, channels + 1), Subsample(channels + 1)),
        lambda: Residual(Subsample(channels + 2), nn.Conv2d(channels, channels + 2, 1, 2)),
        lambda: nn.Sequential(conv(), Sum(nn.Dropout(0.5)), Sum(nn.Sequential(conv(), nn.Dropout(0.5)))),
    ]
    return draw(st.sampled_from(ways))()


@st.composite
def _alone(draw: st.DrawFn, shape: Shape) -> nn.Module:
    return nn.Sequential(*draw(_behind(shape[0])))


PARTS: list[Callable[[Shape], st.SearchStrategy[nn.Module]]] = [
    _conv, _conv, _max_pool, _average_pool, _added, branches, _alone,
]  # fmt: skip


def _pair(least: int, most: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


def batch(example: Tensor, images: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.standard_normal((images, *example.shape[1:]), np.float32))
