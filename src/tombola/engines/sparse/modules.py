"""Linear and convolutional layers that store and multiply only the kept weights, with autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tombola.engines.sparse.network_layout import NetworkLayout
from tombola.kernels.ahead import compile_ahead
from tombola.kernels.image_slot import runs_of
from tombola.kernels.plans.training_plan import Activation, LayerProduct, TrainingPlan
from tombola.kernels.products import Floats
from tombola.kernels.sparsity_pattern import SparsityPattern
from tombola.kernels.training.layer import LayerRuns, layer_backward, layer_forward
from tombola.kernels.training.tables import TrainingWeights, Workspace
from tombola.kernels.vectors import LANES
from tombola.pruning.mask import Mask

WEIGHT, BIAS = "weight", "bias"
BLOCK = 256
"""Rows of a linear layer that are computed at a time."""
IMAGES = 64
"""The same of a convolution's images."""


class LayerKernels(NamedTuple):
    """What the kernels need for a layer and a size of its inputs."""

    layout: NetworkLayout
    workspace: Workspace
    runs: LayerRuns


class SparseProduct:
    """What `layer`, an `nn.Linear` or `nn.Conv2d`, computes with its weights in `kept` only. They are given as
    `values`, in the order of the pattern."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, kept: Tensor) -> None:
        self.shape = layer.weight.shape
        self.options = product_options(layer)
        self.bias = layer.bias is not None
        self.mask = Mask({WEIGHT: kept})
        self.order = torch.from_numpy(SparsityPattern.of(kept.reshape(len(kept), -1).numpy()).order)
        self._cache: dict[tuple[int, ...], LayerKernels] = {}

    def to_sparse(self, weight: Tensor) -> Tensor:
        """The values of a dense weight tensor."""
        return weight.reshape(-1)[self.order]

    def to_dense(self, values: Tensor) -> Tensor:
        """The dense weight tensor with these values, and with a gradient to them."""
        return torch.zeros(self.shape.numel()).scatter(0, self.order, values).view(self.shape)

    def supports(self, x: Tensor) -> bool:
        """Whether `x` is a plain tensor of float32 on the CPU, of the right number of features, outside autocast."""
        plain = type(x) in (Tensor, nn.Parameter) and x.layout == torch.strided and not x.is_nested
        if not plain or x.dtype != torch.float32 or not x.is_cpu or not x.numel() or torch.is_autocast_enabled("cpu"):
            return False
        if len(self.shape) == 2:
            return x.shape[-1] == self.shape[1]
        channels = self.shape[1] * self.options.get("groups", 1)
        return x.dim() in (3, 4) and x.shape[-3] == channels and min(self._output_size(x.shape)) > 0

    def _output_size(self, shape: Sequence[int]) -> tuple[int, int]:
        """Height and width of the outputs, not positive for images smaller than the kernel."""
        options = self.options
        padding, stride, dilation = options["padding"], options["stride"], options["dilation"]
        sizes = [
            (shape[axis - 2] + sum(padding[2 * axis : 2 * axis + 2]) - (kernel - 1) * dilation[axis] - 1)
            // stride[axis]
            for axis, kernel in enumerate(options["kernel"])
        ]
        return sizes[0] + 1, sizes[1] + 1

    def __call__(self, x: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """Linear layers take any number of leading dimensions; convolutions one batch dimension or none."""
        if len(self.shape) == 2:
            out = self._apply(x.reshape(-1, x.shape[-1]), values, bias)
            return out.reshape(*x.shape[:-1], self.shape[0])
        if x.dim() == 3:
            return self._apply(x[None], values, bias)[0]
        return self._apply(x, values, bias)

    def _apply(self, x: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        out: Tensor = _LayerFunction.apply(x, values, bias, self._kernels(tuple(x.shape)))  # type: ignore[no-untyped-call]
        return out

    def _kernels(self, shape: tuple[int, ...]) -> LayerKernels:
        examples, *size = shape
        linear = len(self.shape) == 2
        examples = min(examples, BLOCK if linear else IMAGES)
        examples += -examples % LANES
        key = (examples, *size)
        if key not in self._cache:
            if len(self._cache) >= 4:  # input shapes differ in the last batch and in evaluation
                self._cache.clear()
            out = (self.shape[0], *([] if linear else self._output_size(shape)))
            source, result = Activation.of(tuple(size)), Activation.of(out)
            product = LayerProduct(source, result, bias=self.bias, **self.options)
            product.require_padding()
            shapes = {WEIGHT: tuple(self.shape)} | ({BIAS: (self.shape[0],)} if self.bias else {})
            layout = NetworkLayout(TrainingPlan(source, (product,), source.shape), shapes, self.mask, dense_above=1.0)
            values, gradients = layout.values, layout.gradients
            slots = values[source], values[result], gradients[source], gradients[result]
            runs = LayerRuns(*(runs_of(slot.pixels) for slot in slots))
            self._cache[key] = LayerKernels(layout, layout.workspace(examples, training=True), runs)
            _compile_ahead(self._cache[key])
        return self._cache[key]


class SparseTrainingLayer(nn.Module):
    """An `nn.Linear` or `nn.Conv2d` made sparse by `make_sparse`. Its parameters are `values`, the kept weights in
    the order of `product`, and `bias`.

    It is still an instance of its class, with the same attributes. Calls that the kernels do not support are computed
    by that class, with the dense weight.
    """

    values: nn.Parameter
    bias: nn.Parameter | None
    product: SparseProduct
    needed_dense = False
    """Whether something accessed its weight, or called it with unsupported inputs."""

    @property
    def weight(self) -> Tensor:
        """The dense weight, computed at each access; its gradient is that of `values`. Changes of it are lost."""
        self.needed_dense = True
        return self.product.to_dense(self.values)

    def forward(self, input: Tensor) -> Tensor:  # torch's name, used in calls by keyword
        if self.product.supports(input):
            return self.product(input, self.values, self.bias)
        out: Tensor = super().forward(input)
        return out


class SparseLinear(SparseTrainingLayer, nn.Linear):  # type: ignore[misc, override] # its weight is read-only
    """A sparse `nn.Linear`."""


class SparseConv2d(SparseTrainingLayer, nn.Conv2d):  # type: ignore[misc, override] # its weight is read-only
    """A sparse `nn.Conv2d`."""


def make_sparse(layer: nn.Linear | nn.Conv2d, kept: Tensor) -> SparseTrainingLayer:
    """Make `layer` sparse, in place, so that all references to it stay valid; weights outside `kept` become zero."""
    product = SparseProduct(layer, kept)
    values = nn.Parameter(product.to_sparse(layer.weight.detach()))
    layer._parameters = {"values": values, "bias": layer._parameters["bias"]}
    layer.__class__ = SparseLinear if isinstance(layer, nn.Linear) else SparseConv2d
    assert isinstance(layer, SparseTrainingLayer)
    layer.product = product
    avoid_fused_path(layer)
    return layer


def avoid_fused_path(layer: nn.Module) -> None:
    """Let `nn.TransformerEncoderLayer` call its `layer`. In evaluation it passes the weights of its layers to a fused
    function instead, unless one of them has a hook."""
    layer.register_forward_pre_hook(_do_nothing)


def _do_nothing(layer: nn.Module, inputs: object) -> None:
    """A hook."""


class _LayerFunction(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, values: Tensor, bias: Tensor | None, kernels: LayerKernels) -> Tensor:
        x = x.contiguous()
        context.save_for_backward(x, values)
        context.kernels, context.bias = kernels, bias is not None
        shape = kernels.layout.plan.logits.shape
        out = torch.empty(len(x), *(shape if x.dim() == 4 else shape[:1]))
        weights = _weights(kernels.layout, values, bias)
        layer_forward(
            kernels.layout.structure, weights, kernels.workspace, kernels.runs, _flat(x), len(x), _flat(out)
        )
        return out

    @staticmethod
    @once_differentiable  # an error instead of wrong second derivatives
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, values = context.saved_tensors
        layout, workspace, runs = context.kernels
        weights = _weights(layout, values, values[:0] if context.bias else None)
        of_x = torch.empty(x.shape if context.needs_input_grad[0] else 0)
        arrays = _flat(x), len(x), _flat(gradients[0].contiguous()), _flat(of_x)
        layer_backward(layout.structure, weights, workspace, runs, *arrays)
        found = torch.from_numpy(weights.gradients)
        of_bias = found[_bias_of(layout)] if context.bias else None
        return of_x if context.needs_input_grad[0] else None, found[: len(values)], of_bias, None


def _compile_ahead(kernels: LayerKernels) -> None:
    nothing = np.empty(0, np.float32)
    weights = TrainingWeights(*[nothing] * len(TrainingWeights._fields))
    arrays = kernels.layout.structure, weights, kernels.workspace, kernels.runs, nothing, 0, nothing
    compile_ahead((layer_forward, arrays), (layer_backward, (*arrays, nothing)))


def _weights(layout: NetworkLayout, values: Tensor, bias: Tensor | None) -> TrainingWeights:
    """The parameters of a layer; an empty bias is not needed."""
    parameters, nothing = np.zeros(layout.size, np.float32), np.empty(0, np.float32)
    parameters[: len(values)] = values.detach().numpy()
    if bias is not None and len(bias):
        parameters[_bias_of(layout)] = bias.detach().numpy()
    return TrainingWeights(parameters, np.zeros_like(parameters), nothing, nothing, nothing, nothing)


def _bias_of(layout: NetworkLayout) -> slice:
    slot = layout.slots[BIAS]
    return slice(slot.begin, slot.end)


def _flat(tensor: Tensor) -> Floats:
    return tensor.detach().numpy().reshape(-1)


def product_options(layer: nn.Linear | nn.Conv2d) -> dict[str, Any]:
    """The options of a `LayerProduct` that computes `layer`."""
    if isinstance(layer, nn.Linear):
        return {"kernel": (1, 1), "linear": True}
    left, right, top, bottom = layer._reversed_padding_repeated_twice
    return {
        "kernel": _pair(layer.kernel_size),
        "stride": _pair(layer.stride),
        "padding": (top, bottom, left, right),
        "dilation": _pair(layer.dilation),
        "groups": layer.groups,
    }


def _pair(pair: tuple[int, ...]) -> tuple[int, int]:
    first, second = pair
    return first, second
