"""Layers: linear and convolutional modules that hold and multiply only the weights left, with autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tombola.engines.sparse.convolution import (
    Geometry,
    Kernel,
    Spread,
    convolve,
    convolve_back,
    geometry_of,
    kernel_of,
)
from tombola.engines.sparse.packed import SparsityPattern


class SparseTrainingLayer(nn.Module):
    """Does what `layer`, an `nn.Linear` or an `nn.Conv2d`, does with its weights outside `kept` zero.

    Its parameters are `values`, the weights left, in the order of `pattern`, and `bias`.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, kept: Tensor) -> None:
        super().__init__()
        self.shape = layer.weight.shape
        self.spread = spread_of(layer)
        self.pattern = SparsityPattern.of(kept.reshape(len(kept), -1).numpy())
        self.order = torch.from_numpy(self.pattern.order)
        self.values = nn.Parameter(layer.weight.detach().reshape(-1)[self.order])
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())
        self._plans: dict[tuple[int, ...], tuple[Geometry, Kernel]] = {}

    def dense(self, values: Tensor) -> Tensor:
        """These values of the weights left where the dense layer has them, among zeros."""
        dense = torch.zeros(self.shape)
        dense.reshape(-1)[self.order] = values.detach()
        return dense

    def forward(self, x: Tensor) -> Tensor:
        """Of a linear layer, any number of leading dimensions; of a convolution, with or without the batch's."""
        if len(self.shape) == 2:
            out = self._convolve(x.reshape(-1, x.shape[-1], 1, 1))
            return out.reshape(*x.shape[:-1], self.shape[0])
        if x.dim() == 3:
            return self._convolve(x[None])[0]
        return self._convolve(x)

    def _convolve(self, x: Tensor) -> Tensor:
        geometry, kernel = self._plan(tuple(x.shape))
        out: Tensor = _Convolution.apply(x, self.values, self.bias, geometry, kernel)  # type: ignore[no-untyped-call]
        return out

    def _plan(self, shape: tuple[int, ...]) -> tuple[Geometry, Kernel]:
        if shape not in self._plans:
            if len(self._plans) >= 4:  # the last batch, the evaluation's: not many
                self._plans.clear()
            geometry = geometry_of(self.spread, self.shape[0], *shape)
            self._plans[shape] = geometry, kernel_of(self.pattern, self.spread, geometry)
        return self._plans[shape]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, x: Tensor, values: Tensor, bias: Tensor | None, geometry: Geometry, kernel: Kernel
    ) -> Tensor:
        x = x.contiguous()
        context.save_for_backward(x, values)
        context.geometry, context.kernel = geometry, kernel
        out = torch.empty(len(x), geometry.outputs, geometry.out_height, geometry.out_width)
        offsets = np.empty(0, np.float32) if bias is None else bias.detach().numpy()
        images, packed, outputs = (tensor.detach().numpy().reshape(-1) for tensor in (x, values, out))
        convolve(images, len(x), packed, offsets, kernel, geometry, outputs)
        return out

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, values = context.saved_tensors
        gradient = gradients[0].contiguous()
        of_values = torch.empty_like(values)
        of_x = torch.empty(x.shape if context.needs_input_grad[0] else (0, 1, 1, 1))
        images, packed = (tensor.detach().numpy().reshape(-1) for tensor in (x, values))
        arrays = (tensor.detach().numpy().reshape(-1) for tensor in (gradient, of_values, of_x))
        convolve_back(images, len(x), packed, context.kernel, context.geometry, *arrays)
        of_bias = gradient.sum((0, 2, 3)) if context.needs_input_grad[2] else None
        return of_x if context.needs_input_grad[0] else None, of_values, of_bias, None, None


def spread_of(layer: nn.Linear | nn.Conv2d) -> Spread:
    """How the kernel of `layer` lies on its inputs."""
    if isinstance(layer, nn.Linear):
        return Spread()
    left, right, top, bottom = layer._reversed_padding_repeated_twice
    return Spread(
        size=_pair(layer.kernel_size),
        stride=_pair(layer.stride),
        padding=(top, bottom, left, right),
        dilation=_pair(layer.dilation),
        groups=layer.groups,
    )


def _pair(pair: tuple[int, ...]) -> tuple[int, int]:
    first, second = pair
    return first, second
