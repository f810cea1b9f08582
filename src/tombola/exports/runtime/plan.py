"""Plan: a network as products and max poolings, which is all that the kernels know.

Batch norm is folded into the product before it; ReLU and residual additions are done while the sums are still in
registers. A linear layer is a convolution with a kernel as large as its input, average pooling one with equal
weights, a copy one with ones: there is little else that a network of this kind does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tombola.exports.coupling import bias_of
from tombola.exports.graph import Step

Numbers = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]


class Unplannable(Exception):
    """The network does something that the kernels do not. The message says what."""


@dataclass(eq=False)
class Image:
    """A value: `channels` images of `height` × `width`; features are images of one pixel."""

    channels: int
    height: int = 1
    width: int = 1
    around: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    """How many lines and columns of zeros its readers want: above, below, left, right."""

    def want(self, above: int, below: int, left: int, right: int) -> None:
        """Have at least so many."""
        self.around = [max(pair) for pair in zip(self.around, (above, below, left, right), strict=True)]


@dataclass(eq=False)
class Product:
    """out[row] = Σ weight · source[channel, moved by (down, across)] + bias (+ plus), not less than 0 with `relu`."""

    source: Image
    out: Image
    weights: SparseWeights
    bias: Numbers
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    """Above and to the left: where the first kernel begins."""
    first: int = 0
    """The channel of `out` that the first row is."""
    plus: Image | None = None
    relu: bool = False


@dataclass(frozen=True)
class SparseWeights:
    """The nonzero weights of a product, row by row."""

    row: Whole
    channel: Whole
    down: Whole
    across: Whole
    value: Numbers
    kernel: ConvGeometry | None = None
    """Where all weights together are a matrix, which could be multiplied dense."""

    def times(self, scale: Numbers) -> SparseWeights:
        """Each row by its own number."""
        return SparseWeights(
            self.row, self.channel, self.down, self.across, self.value * scale[self.row], self.kernel
        )


@dataclass(frozen=True)
class ConvGeometry:
    """Sizes of a kernel; its matrix has (channels · height · width) columns."""

    height: int
    width: int
    dilation: tuple[int, int] = (1, 1)


@dataclass(eq=False)
class Largest:
    """Max pooling."""

    source: Image
    out: Image
    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


@dataclass
class Plan:
    """Products and poolings in order; they read `inputs`, and what they leave in `outputs` is the answer."""

    inputs: Image
    outputs: Image
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    work: list[Product | Largest]


def plan_of(steps: Sequence[Step]) -> Plan:
    """The plan of a network's graph.

    Raises `Unplannable` where the network does something else.
    """
    return _Planner(steps).plan()


class _Planner:
    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self.work: list[Product | Largest] = []
        self.images: dict[int, Image] = {}
        """What each step leaves, so far."""
        self.readers: list[list[int]] = [[] for _ in steps]
        for index, step in enumerate(steps):
            for source in step.inputs:
                self.readers[source].append(index)

    def plan(self) -> Plan:
        for index, step in enumerate(self.steps):
            if index not in self.images:
                if step.kind not in _PLANNED:
                    raise Unplannable(f"{step.path or step.name} ({step.kind}) is nothing that the kernels do")
                _PLANNED[step.kind](self, index, step)
        (first,) = (i for i, step in enumerate(self.steps) if step.kind == "input")
        (last,) = (i for i, step in enumerate(self.steps) if step.kind == "output")
        answer = self.steps[last]
        if len(answer.inputs) != 1 or answer.shape != self.steps[answer.inputs[0]].shape:
            raise Unplannable("it returns something else than one tensor")
        shapes = self.steps[first].shape[1:], answer.shape[1:]
        return Plan(self.images[first], self.images[last], *shapes, self.work)

    def source(self, step: Step, which: int = 0) -> Image:
        return self.images[step.inputs[which]]

    def known(self, index: int) -> Image | None:
        """What a step leaves, if that is there by now; a shortcut that does nothing need not have had its turn."""
        while index not in self.images and self.steps[index].kind == "identity":
            (index,) = self.steps[index].inputs
        return self.images.get(index)

    def input(self, index: int, step: Step) -> None:
        shape = step.shape[1:]
        if len(shape) == 1:
            self.images[index] = Image(shape[0])
        elif len(shape) in (2, 3):
            self.images[index] = Image(*_three((1, *shape)[-3:]))
        else:
            raise Unplannable(f"examples of shape {shape} are neither features nor images")

    def same(self, index: int, step: Step) -> None:
        self.images[index] = self.source(step)

    def unflatten(self, index: int, step: Step) -> None:
        image = self.source(step)
        if (image.channels, image.height, image.width) != step.shape[1:]:
            raise Unplannable(f"{step.path or step.name} gives shape {step.shape[1:]}")
        self.images[index] = image

    def linear(self, index: int, step: Step) -> None:
        layer = step.module
        assert isinstance(layer, nn.Linear)
        source = self.source(step)
        if len(step.shape) != 2 or layer.in_features != source.channels * source.height * source.width:
            raise Unplannable(f"{step.path} is a linear layer that gives shape {step.shape[1:]}")
        kernel = ConvGeometry(source.height, source.width)
        matrix = layer.weight.reshape(-1, source.channels, source.height, source.width)
        self.product(index, Product(source, Image(layer.out_features), _weights(matrix, kernel), bias_of(layer)))

    def conv(self, index: int, step: Step) -> None:
        layer = step.module
        assert isinstance(layer, nn.Conv2d)
        if layer.padding_mode != "zeros":
            raise Unplannable(f'{step.path} has padding mode "{layer.padding_mode}"')
        left, right, above, below = layer._reversed_padding_repeated_twice
        source = self.source(step)
        source.want(above, below, left, right)
        kernel = ConvGeometry(*_pair(layer.kernel_size), _pair(layer.dilation))
        weights = _weights(layer.weight, kernel, layer.groups)
        out = _image(step)
        self.product(index, Product(source, out, weights, bias_of(layer), _pair(layer.stride), (above, left)))

    def average_pool(self, index: int, step: Step) -> None:
        window = step.options
        assert window is not None
        if window.ceil_mode or (window.padding != (0, 0) and not window.count_include_pad):
            raise Unplannable(f"{step.path or step.name} averages windows of different sizes")
        source, (above, left), (height, width) = self.source(step), window.padding, window.kernel
        source.want(above, above, left, left)
        equal = torch.full((source.channels, 1, height, width), 1 / (height * width), dtype=torch.float64)
        weights = _weights(equal, ConvGeometry(height, width), groups=source.channels)
        out, bias = _image(step), np.zeros(source.channels)
        self.product(index, Product(source, out, weights, bias, window.stride, window.padding))

    def max_pool(self, index: int, step: Step) -> None:
        window = step.options
        assert window is not None
        source, out = self.source(step), _image(step)
        self.images[index] = out
        self.work.append(Largest(source, out, window.kernel, window.stride, window.padding, window.dilation))

    def subsample(self, index: int, step: Step) -> None:
        source, out = self.source(step), _image(step)
        copied = _ones(min(source.channels, out.channels))
        self.product(index, Product(source, out, copied, np.zeros(out.channels), (2, 2)))

    def norm(self, index: int, step: Step) -> None:
        source = self.source(step)
        scale, shift = _scale_and_shift(step)
        if len(scale) != source.channels:
            raise Unplannable(f"{step.path} normalises features that are still images")
        self.product(index, Product(source, _like(source), _ones(source.channels).times(scale), shift))

    def pointwise(self, index: int, step: Step) -> None:
        if step.function is not torch.relu:
            raise Unplannable(f"{step.path or step.name} is no ReLU")
        source = self.source(step)
        zeros = np.zeros(source.channels)
        self.product(index, Product(source, _like(source), _ones(source.channels), zeros), relu=True)

    def add(self, index: int, step: Step) -> None:
        one, other = self.source(step, 0), self.source(step, 1)
        _same_sizes(one, other, step)
        zeros = np.zeros(one.channels)
        self.product(index, Product(one, _like(one), _ones(one.channels), zeros, plus=other))

    def concatenate(self, index: int, step: Step) -> None:
        sources = [self.images[source] for source in step.inputs]
        out = _image(step)
        if (sum(s.channels for s in sources), out.height, out.width) != (out.channels, *_sides(sources)):
            raise Unplannable(f"{step.name} concatenates features that are still images")
        self.images[index], first = out, 0
        for source in sources:
            copied = _ones(source.channels)
            self.work.append(Product(source, out, copied, np.zeros(source.channels), first=first))
            first += source.channels

    def product(self, index: int, product: Product, relu: bool = False) -> None:
        """Add a product, and to it what is done to its outputs before anything else reads them."""
        product.relu = relu
        self.images[index] = product.out
        while not product.relu and len(self.readers[index]) == 1:
            (index,) = self.readers[index]
            step = self.steps[index]
            if step.kind == "norm" and product.plus is None:
                scale, shift = _scale_and_shift(step)
                if len(scale) != len(product.bias):
                    break
                product.weights, product.bias = product.weights.times(scale), product.bias * scale + shift
            elif step.kind == "add" and product.plus is None:
                both = [self.known(source) for source in step.inputs]
                others = [image for image in both if image is not None and image is not product.out]
                if len(others) != 1:
                    break  # the other is not there yet
                _same_sizes(product.out, others[0], step)
                product.plus = others[0]
            elif step.function is torch.relu:
                product.relu = True
            elif step.kind != "identity":
                break
            self.images[index] = product.out
        self.work.append(product)


_PLANNED: dict[str, Callable[[_Planner, int, Step], None]] = {
    "input": _Planner.input,
    "identity": _Planner.same,
    "flatten": _Planner.same,
    "output": _Planner.same,
    "unflatten": _Planner.unflatten,
    "linear": _Planner.linear,
    "conv": _Planner.conv,
    "norm": _Planner.norm,
    "pointwise": _Planner.pointwise,
    "max-pool": _Planner.max_pool,
    "average-pool": _Planner.average_pool,
    "subsample": _Planner.subsample,
    "add": _Planner.add,
    "concatenate": _Planner.concatenate,
}


def _weights(kernel: Tensor, sizes: ConvGeometry, groups: int = 1) -> SparseWeights:
    """Those of a kernel of shape (outputs, channels of a group, height, width) that are not zero."""
    if not kernel.dtype.is_floating_point:
        raise Unplannable(f"weights are of {kernel.dtype}")
    value = kernel.detach().to("cpu", torch.float64).numpy()
    row, channel, i, j = np.nonzero(value)
    channel = channel + row // (len(value) // groups) * value.shape[1]
    down, across = i * sizes.dilation[0], j * sizes.dilation[1]
    kept = value[np.nonzero(value)]
    return SparseWeights(row, channel, down, across, kept, sizes if groups == 1 else None)


def _ones(channels: int) -> SparseWeights:
    """Each channel as it is."""
    each, none = np.arange(channels), np.zeros(channels, np.int64)
    return SparseWeights(each, each, none, none, np.ones(channels))


def _scale_and_shift(step: Step) -> tuple[Numbers, Numbers]:
    """What batch norm does to each channel once its statistics stand still."""
    norm = step.module
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    if norm.running_mean is None or norm.running_var is None:
        raise Unplannable(f"{step.path} keeps no running statistics")
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    return scale.numpy(), shift.numpy()


def _image(step: Step) -> Image:
    """For what a step leaves."""
    return Image(*_three((*step.shape[1:], 1, 1)[:3]))


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    channels, height, width = shape
    return channels, height, width


def _like(image: Image) -> Image:
    return Image(image.channels, image.height, image.width)


def _sides(images: Sequence[Image]) -> tuple[int, int]:
    """Height and width of all of them; (0, 0) where they differ."""
    sides = {(image.height, image.width) for image in images}
    return sides.pop() if len(sides) == 1 else (0, 0)


def _same_sizes(one: Image, other: Image, step: Step) -> None:
    if (one.channels, one.height, one.width) != (other.channels, other.height, other.width):
        raise Unplannable(f"{step.name} adds features to images")


def _pair(pair: tuple[int, ...]) -> tuple[int, int]:
    return pair[0], pair[1]
