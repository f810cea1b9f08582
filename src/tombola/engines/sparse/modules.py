"""Linear and convolutional layers that store and multiply only the kept weights, with autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tombola.engines.sparse import convolution
from tombola.engines.sparse.sparsity_pattern import SparsityPattern


class SparseTrainingLayer(nn.Module):
    """Computes what `layer`, an `nn.Linear` or `nn.Conv2d`, computes with the weights outside `kept` set to zero. Its
    parameters are `values`, the kept weights, in the order of `pattern`, and `bias`."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, kept: Tensor) -> None:
        super().__init__()
        self.shape = layer.weight.shape
        self.options = convolution_options(layer)
        self.pattern = SparsityPattern.of(kept.reshape(len(kept), -1).numpy())
        self.order = torch.from_numpy(self.pattern.order)
        self.values = nn.Parameter(layer.weight.detach().reshape(-1)[self.order])
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())
        self._cache: dict[tuple[int, ...], tuple[convolution.Geometry, convolution.KernelIndices]] = {}

    def to_dense(self, values: Tensor) -> Tensor:
        """The dense weight tensor with these kept weights."""
        dense = torch.zeros(self.shape)
        dense.reshape(-1)[self.order] = values.detach()
        return dense

    def forward(self, x: Tensor) -> Tensor:
        """Linear layers take any number of leading dimensions; convolutions one batch dimension or none."""
        if len(self.shape) == 2:
            out = self._convolve(x.reshape(-1, x.shape[-1], 1, 1))
            return out.reshape(*x.shape[:-1], self.shape[0])
        if x.dim() == 3:
            return self._convolve(x[None])[0]
        return self._convolve(x)

    def _convolve(self, x: Tensor) -> Tensor:
        geometry, indices = self._geometry(tuple(x.shape))
        out: Tensor = _Convolution.apply(x, self.values, self.bias, geometry, indices)  # type: ignore[no-untyped-call]
        return out

    def _geometry(self, shape: tuple[int, ...]) -> tuple[convolution.Geometry, convolution.KernelIndices]:
        if shape not in self._cache:
            if len(self._cache) >= 4:  # input shapes differ in the last batch and in evaluation
                self._cache.clear()
            geometry = convolution.convolution_geometry(self.options, self.shape[0], *shape)
            self._cache[shape] = geometry, convolution.kernel_indices(self.pattern, self.options, geometry)
        return self._cache[shape]


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
