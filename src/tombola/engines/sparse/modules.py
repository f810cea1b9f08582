"""Linear and convolutional layers that store and multiply only the kept weights, with autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tombola.engines.sparse import convolution
from tombola.kernels.sparsity_pattern import SparsityPattern


class SparseProduct:
    """What `layer`, an `nn.Linear` or `nn.Conv2d`, computes with its weights in `kept` only. They are given as
    `values`, in the order of the pattern."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, kept: Tensor) -> None:
        self.shape = layer.weight.shape
        self.options = convolution_options(layer)
        self.pattern = SparsityPattern.of(kept.reshape(len(kept), -1).numpy())
        self.order = torch.from_numpy(self.pattern.order)
        self._cache: dict[tuple[int, ...], tuple[convolution.Geometry, convolution.KernelIndices]] = {}

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
        return x.dim() in (3, 4) and x.shape[-3] == self.shape[1] * self.options.groups and self._is_large_enough(x)

    def _is_large_enough(self, images: Tensor) -> bool:
        """Whether padded images are as large as the kernel."""
        top, bottom, left, right = self.options.padding
        height, width = images.shape[-2] + top + bottom, images.shape[-1] + left + right
        sizes = zip((height, width), self.options.size, self.options.dilation, strict=True)
        return all(side > (kernel - 1) * dilation for side, kernel, dilation in sizes)

    def __call__(self, x: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """Linear layers take any number of leading dimensions; convolutions one batch dimension or none."""
        if len(self.shape) == 2:
            out = self._convolve(x.reshape(-1, x.shape[-1], 1, 1), values, bias)
            return out.reshape(*x.shape[:-1], self.shape[0])
        if x.dim() == 3:
            return self._convolve(x[None], values, bias)[0]
        return self._convolve(x, values, bias)

    def _convolve(self, x: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        geometry, indices = self._geometry(tuple(x.shape))
        out: Tensor = _Convolution.apply(x, values, bias, geometry, indices)  # type: ignore[no-untyped-call]
        return out

    def _geometry(self, shape: tuple[int, ...]) -> tuple[convolution.Geometry, convolution.KernelIndices]:
        if shape not in self._cache:
            if len(self._cache) >= 4:  # input shapes differ in the last batch and in evaluation
                self._cache.clear()
            geometry = convolution.convolution_geometry(self.options, self.shape[0], *shape)
            self._cache[shape] = geometry, convolution.kernel_indices(self.pattern, self.options, geometry)
        return self._cache[shape]


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


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        x: Tensor,
        values: Tensor,
        bias: Tensor | None,
        geometry: convolution.Geometry,
        indices: convolution.KernelIndices,
    ) -> Tensor:
        x = x.contiguous()
        context.save_for_backward(x, values)
        context.geometry, context.indices = geometry, indices
        out = torch.empty(len(x), geometry.outputs, geometry.out_height, geometry.out_width)
        offsets = np.empty(0, np.float32) if bias is None else bias.detach().numpy()
        images, packed, outputs = (tensor.detach().numpy().reshape(-1) for tensor in (x, values, out))
        convolution.convolve(images, len(x), packed, offsets, indices, geometry, outputs)
        return out

    @staticmethod
    @once_differentiable  # an error instead of wrong second derivatives
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, values = context.saved_tensors
        gradient = gradients[0].contiguous()
        of_values = torch.empty_like(values)
        of_x = torch.empty(x.shape if context.needs_input_grad[0] else (0, 1, 1, 1))
        images, packed = (tensor.detach().numpy().reshape(-1) for tensor in (x, values))
        arrays = (tensor.detach().numpy().reshape(-1) for tensor in (gradient, of_values, of_x))
        convolution.convolve_back(images, len(x), packed, context.indices, context.geometry, *arrays)
        of_bias = gradient.sum((0, 2, 3)) if context.needs_input_grad[2] else None
        return of_x if context.needs_input_grad[0] else None, of_values, of_bias, None, None


def convolution_options(layer: nn.Linear | nn.Conv2d) -> convolution.ConvolutionOptions:
    """The options of `layer`."""
    if isinstance(layer, nn.Linear):
        return convolution.ConvolutionOptions()
    left, right, top, bottom = layer._reversed_padding_repeated_twice
    return convolution.ConvolutionOptions(
        size=_pair(layer.kernel_size),
        stride=_pair(layer.stride),
        padding=(top, bottom, left, right),
        dilation=_pair(layer.dilation),
        groups=layer.groups,
    )


def _pair(pair: tuple[int, ...]) -> tuple[int, int]:
    first, second = pair
    return first, second
