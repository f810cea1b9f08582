"""Planner: makes a plan of a network's graph.

Batch norm is folded into the product before it; ReLU and residual additions are done while the sums are still in
registers. A linear layer becomes a convolution with a kernel as large as its input, average pooling one with equal
weights, a copy one with ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tombola.graph.constants import FloatArray
from tombola.kernels.plans.plan import (
    ConvGeometry,
    Image,
    MaxPool,
    Plan,
    Product,
    SparseWeights,
    UnsupportedNetwork,
)
from tombola.kernels.plans.steps import Step


def plan_of(steps: Sequence[Step]) -> Plan:
    """The plan of a network's graph. Raises `UnsupportedNetwork` if the kernels cannot compute one of the steps."""
    return _Planner(steps).plan()


class _Planner:
    """Has a method `plan_KIND` for each kind of step that the kernels can compute."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self.work: list[Product | MaxPool] = []
        self.images: dict[int, Image] = {}
        """The output of each step so far."""
        self.readers: list[list[int]] = [[] for _ in steps]
        for index, step in enumerate(steps):
            for source in step.inputs:
                self.readers[source].append(index)

    def plan(self) -> Plan:
        for index, step in enumerate(self.steps):
            if index not in self.images:
                plan_step = getattr(self, f"plan_{step.kind.replace('-', '_')}", None)
                if plan_step is None:
                    raise UnsupportedNetwork(f"{step.path or step.name} ({step.kind}) is not supported")
                plan_step(index, step)
        (first,) = (i for i, step in enumerate(self.steps) if step.kind == "input")
        (last,) = (i for i, step in enumerate(self.steps) if step.kind == "output")
        output = self.steps[last]
        if len(output.inputs) != 1 or output.shape != self.steps[output.inputs[0]].shape:
            raise UnsupportedNetwork("the network does not return a single tensor")
        shapes = self.steps[first].shape[1:], output.shape[1:]
        return Plan(self.images[first], self.images[last], *shapes, self.work)

    def source(self, step: Step, which: int = 0) -> Image:
        return self.images[step.inputs[which]]

    def known(self, index: int) -> Image | None:
        """The output of a step if it is known by now; identities before it need not have been planned."""
        while index not in self.images and self.steps[index].kind == "identity":
            (index,) = self.steps[index].inputs
        return self.images.get(index)

    def plan_input(self, index: int, step: Step) -> None:
        shape = step.shape[1:]
        if len(shape) == 1:
            self.images[index] = Image(shape[0])
        elif len(shape) in (2, 3):
            self.images[index] = Image.of((1, *shape)[-3:])
        else:
            raise UnsupportedNetwork(f"examples of shape {shape} are neither features nor images")

    def plan_identity(self, index: int, step: Step) -> None:
        self.images[index] = self.source(step)

    plan_flatten = plan_output = plan_identity

    def plan_unflatten(self, index: int, step: Step) -> None:
        image = self.source(step)
        if image.shape != step.shape[1:]:
            raise UnsupportedNetwork(f"{step.path or step.name} gives shape {step.shape[1:]}")
        self.images[index] = image

    def plan_linear(self, index: int, step: Step) -> None:
        layer = step.module
        assert isinstance(layer, nn.Linear)
        source = self.source(step)
        if len(step.shape) != 2 or layer.in_features != source.channels * source.height * source.width:
            raise UnsupportedNetwork(f"{step.path} is a linear layer that gives shape {step.shape[1:]}")
        kernel = ConvGeometry(source.height, source.width)
        matrix = layer.weight.reshape(-1, *source.shape)
        self.product(index, Product(source, Image(layer.out_features), _weights(matrix, kernel), _bias_of(layer)))

    def plan_conv(self, index: int, step: Step) -> None:
        layer = step.module
        assert isinstance(layer, nn.Conv2d)
        if layer.padding_mode != "zeros":
            raise UnsupportedNetwork(f'{step.path} has padding mode "{layer.padding_mode}"')
        left, right, top, bottom = layer._reversed_padding_repeated_twice
        source = self.source(step)
        source.require_padding(top, bottom, left, right)
        kernel = ConvGeometry(*_pair(layer.kernel_size), _pair(layer.dilation))
        weights = _weights(layer.weight, kernel, layer.groups)
        out = _image(step)
        self.product(index, Product(source, out, weights, _bias_of(layer), _pair(layer.stride), (top, left)))

    def plan_average_pool(self, index: int, step: Step) -> None:
        window = step.options
        assert window is not None
        if window.ceil_mode or (window.padding != (0, 0) and not window.count_include_pad):
            raise UnsupportedNetwork(f"{step.path or step.name} averages windows of different sizes")
        source, (top, left), (height, width) = self.source(step), window.padding, window.kernel
        source.require_padding(top, top, left, left)
        equal = torch.full((source.channels, 1, height, width), 1 / (height * width), dtype=torch.float64)
        weights = _weights(equal, ConvGeometry(height, width), groups=source.channels)
        out, bias = _image(step), np.zeros(source.channels)
        self.product(index, Product(source, out, weights, bias, window.stride, window.padding))

    def plan_max_pool(self, index: int, step: Step) -> None:
        window = step.options
        assert window is not None
        source, out = self.source(step), _image(step)
        self.images[index] = out
        self.work.append(MaxPool(source, out, window.kernel, window.stride, window.padding, window.dilation))

    def plan_subsample(self, index: int, step: Step) -> None:
        source, out = self.source(step), _image(step)
        copied = _ones(min(source.channels, out.channels))
        self.product(index, Product(source, out, copied, np.zeros(out.channels), (2, 2)))

    def plan_norm(self, index: int, step: Step) -> None:
        source = self.source(step)
        scale, shift = _scale_and_shift(step)
        if len(scale) != source.channels:
            raise UnsupportedNetwork(f"{step.path} normalises flattened images")
        self.product(index, Product(source, Image.of(source.shape), _ones(source.channels).scaled(scale), shift))

    def plan_pointwise(self, index: int, step: Step) -> None:
        if step.function is not torch.relu:
            raise UnsupportedNetwork(f"{step.path or step.name} is not a ReLU")
        self.copy(index, self.source(step), relu=True)

    def plan_add(self, index: int, step: Step) -> None:
        one, other = self.source(step, 0), self.source(step, 1)
        _check_same_shape(one, other, step)
        self.copy(index, one, addend=other)

    def copy(self, index: int, source: Image, addend: Image | None = None, relu: bool = False) -> None:
        """Add a product that copies each channel."""
        bias = np.zeros(source.channels)
        self.product(
            index, Product(source, Image.of(source.shape), _ones(source.channels), bias, addend=addend), relu
        )

    def plan_concatenate(self, index: int, step: Step) -> None:
        sources = [self.images[source] for source in step.inputs]
        out = _image(step)
        sides = {source.shape[1:] for source in sources}
        if sum(s.channels for s in sources) != out.channels or sides != {out.shape[1:]}:
            raise UnsupportedNetwork(f"{step.name} concatenates flattened images")
        self.images[index], first = out, 0
        for source in sources:
            copied = _ones(source.channels)
            self.work.append(Product(source, out, copied, np.zeros(source.channels), first=first))
            first += source.channels

    def product(self, index: int, product: Product, relu: bool = False) -> None:
        """Add a product, and fuse with it what is done to its outputs before anything else reads them."""
        product.relu = relu
        self.images[index] = product.out
        while not product.relu and len(self.readers[index]) == 1:
            (index,) = self.readers[index]
            step = self.steps[index]
            if step.kind == "norm" and product.addend is None:
                scale, shift = _scale_and_shift(step)
                if len(scale) != len(product.bias):
                    break
                product.weights, product.bias = product.weights.scaled(scale), product.bias * scale + shift
            elif step.kind == "add" and product.addend is None:
                both = [self.known(source) for source in step.inputs]
                others = [image for image in both if image is not None and image is not product.out]
                if len(others) != 1:
                    break  # the other summand is not planned yet
                _check_same_shape(product.out, others[0], step)
                product.addend = others[0]
            elif step.function is torch.relu:
                product.relu = True
            elif step.kind != "identity":
                break
            self.images[index] = product.out
        self.work.append(product)


def _weights(kernel: Tensor, sizes: ConvGeometry, groups: int = 1) -> SparseWeights:
    """The nonzero weights of a kernel of shape (outputs, channels of a group, height, width)."""
    if not kernel.dtype.is_floating_point:
        raise UnsupportedNetwork(f"weights have type {kernel.dtype}")
    value = kernel.detach().to("cpu", torch.float64).numpy()
    row, channel, i, j = np.nonzero(value)
    channel = channel + row // (len(value) // groups) * value.shape[1]
    down, across = i * sizes.dilation[0], j * sizes.dilation[1]
    nonzero = value[np.nonzero(value)]
    return SparseWeights(row, channel, down, across, nonzero, sizes if groups == 1 else None)


def _ones(channels: int) -> SparseWeights:
    """Weights that copy each channel."""
    each, zeros = np.arange(channels), np.zeros(channels, np.int64)
    return SparseWeights(each, each, zeros, zeros, np.ones(channels))


def _scale_and_shift(step: Step) -> tuple[FloatArray, FloatArray]:
    """What batch norm with running statistics multiplies each channel by, and adds to it."""
    norm = step.module
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    if norm.running_mean is None or norm.running_var is None:
        raise UnsupportedNetwork(f"{step.path} has no running statistics")
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    return scale.numpy(), shift.numpy()


def _image(step: Step) -> Image:
    """An image for the output of a step."""
    return Image.of((*step.shape[1:], 1, 1)[:3])


def _check_same_shape(one: Image, other: Image, step: Step) -> None:
    if one.shape != other.shape:
        raise UnsupportedNetwork(f"{step.name} adds features to images")


def _pair(pair: tuple[int, ...]) -> tuple[int, int]:
    return pair[0], pair[1]


def _bias_of(layer: nn.Linear | nn.Conv2d) -> FloatArray:
    """The bias of each output; zeros if the layer has none."""
    bias = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach().cpu()
    array: FloatArray = bias.double().numpy()
    return array
