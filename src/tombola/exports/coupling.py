"""Coupling: which units of a network must be kept or removed together, and which are constant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tombola.exports.graph import Step

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Channels:
    """The units of a tensor along one axis: channels of images, or features."""

    ids: IntArray
    """The unit of each channel. A flattened image has each unit once for each pixel."""
    constants: FloatArray
    """The value of each channel if it is the same for all examples and pixels; NaN otherwise."""
    axis: int


@dataclass(frozen=True)
class CoupledLayer:
    """A module whose sizes depend on the number of units, its inputs and its outputs."""

    module: nn.Module
    inputs: Channels
    outputs: Channels

    @property
    def is_product(self) -> bool:
        """Whether every output may depend on every input: a linear layer, or a convolution of one group."""
        return isinstance(self.module, nn.Linear) or (isinstance(self.module, nn.Conv2d) and self.module.groups == 1)

    @cached_property
    def nonzero(self) -> BoolArray:
        """Of a product, whether an output has a nonzero weight for an input: [outputs, inputs]."""
        return _nonzero(self.module)

    @property
    def padded(self) -> bool:
        """Whether it pads its input with zeros, which no constant input equals there."""
        return _padded(self.module)


class CoupledUnits:
    """The units of a network. Those that must be kept or removed together have the same number.

    Linear layers and convolutions create units; layers that treat units one by one pass them on; the operands of an
    addition have the same units.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self._parent: list[int] = []  # union-find: the parent of each unit
        self._fixed: list[IntArray] = []
        values: list[Channels] = []
        sized: list[int] = []
        for index, step in enumerate(steps):
            inputs = [values[one] for one in step.inputs]
            output = self._known_output(step, inputs)
            if output is not None and step.kind in ("linear", "conv", "norm", "subsample"):
                sized.append(index)
            values.append(self._barrier(step, inputs) if output is None else output)
        roots = np.array([self._find(unit) for unit in range(len(self._parent))], dtype=np.int64)
        self.count = len(roots)
        """Numbers of units are smaller than this; not all of them occur."""
        self.fixed: IntArray = roots[np.concatenate(self._fixed)]
        """Units that cannot be removed: inputs, outputs, and those next to unrecognised steps."""
        self.values = [replace(value, ids=roots[value.ids]) for value in values]
        """The output of each step."""
        self.layers = [
            CoupledLayer(module, self.values[steps[index].inputs[0]], self.values[index])
            for index in sized
            if (module := steps[index].module) is not None
        ]
        """The modules that can be made smaller, in the order of their calls."""

    def _known_output(self, step: Step, inputs: list[Channels]) -> Channels | None:
        """The output of a step; None if its inputs and output have to keep all units."""
        if not inputs or step.kind in ("output", "unflatten", "other") or (step.fixed and step.kind != "flatten"):
            return None
        x = inputs[0]
        match step.kind:
            case "identity":
                return x
            case "pointwise" if step.function is not None:
                return replace(x, constants=_applied(step.function, x.constants))
            case "linear" if x.axis == len(step.shape) - 1:
                return self._product(step, x)
            case "add" if len({read.axis for read in inputs}) == 1:
                for a, b in zip(x.ids, inputs[1].ids, strict=True):
                    self._parent[self._find(int(a))] = self._find(int(b))
                return replace(x, constants=_finite(x.constants + inputs[1].constants))
        return self._of_channels(step, inputs) if all(read.axis == 1 for read in inputs) else None

    def _of_channels(self, step: Step, inputs: list[Channels]) -> Channels | None:
        x, module = inputs[0], step.module
        match step.kind:
            case "max-pool":
                return x
            case "average-pool" if step.options is not None:
                borders = step.options.count_include_pad and any(step.options.padding)
                return replace(x, constants=_zero_or_unknown(x.constants)) if borders else x
            case "flatten":
                if step.fixed:
                    self._fixed.append(x.ids)
                times = step.shape[1] // len(x.ids)
                return Channels(np.repeat(x.ids, times), np.repeat(x.constants, times), 1)
            case "concatenate":
                ids = np.concatenate([read.ids for read in inputs])
                return Channels(ids, np.concatenate([read.constants for read in inputs]), 1)
            case "norm":
                assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
                return replace(x, constants=_normalised(module, x.constants))
            case "conv":
                assert isinstance(module, nn.Conv2d)
                if module.groups == 1:
                    return self._product(step, x)
                return _depthwise(module, x) if module.groups == module.in_channels else None
            case "subsample" if step.shape[1] >= len(x.ids):
                more = step.shape[1] - len(x.ids)
                return Channels(np.append(x.ids, self._new(more)), np.append(x.constants, np.zeros(more)), 1)
        return None

    def _product(self, step: Step, x: Channels) -> Channels:
        """Every output is a unit of its own, constant if all inputs that it depends on are."""
        assert isinstance(step.module, nn.Linear | nn.Conv2d)
        axis = len(step.shape) - 1 if isinstance(step.module, nn.Linear) else 1
        constants = _zero_or_unknown(x.constants) if _padded(step.module) else x.constants
        unknown = _nonzero(step.module) @ np.isnan(constants)
        sums = to_float64(step.module.weight).reshape(len(unknown), len(constants), -1).sum(2)
        given = sums @ np.nan_to_num(constants) + bias_of(step.module)
        return Channels(self._new(len(unknown)), _finite(np.where(unknown, np.nan, given)), axis)

    def _barrier(self, step: Step, inputs: list[Channels]) -> Channels:
        axis = 1 if len(step.shape) in (2, 4) else max(0, len(step.shape) - 1)
        ids = self._new(step.shape[axis] if len(step.shape) > 1 else 0)
        self._fixed += [*(read.ids for read in inputs), ids]
        return Channels(ids, np.full(len(ids), np.nan), axis)

    def _new(self, count: int) -> IntArray:
        first = len(self._parent)
        self._parent += range(first, first + count)
        return np.arange(first, first + count)

    def _find(self, unit: int) -> int:
        while self._parent[unit] != unit:
            self._parent[unit] = unit = self._parent[self._parent[unit]]
        return unit


def to_float64(tensor: Tensor) -> FloatArray:
    """A copy in double precision."""
    array: FloatArray = tensor.detach().cpu().double().numpy().copy()
    return array


def bias_of(module: nn.Linear | nn.Conv2d) -> FloatArray:
    """The bias of each output; zeros if the layer has none."""
    return np.zeros(module.weight.shape[0]) if module.bias is None else to_float64(module.bias)


def _nonzero(module: nn.Module) -> BoolArray:
    assert isinstance(module.weight, Tensor)
    weight = module.weight.detach()
    array: BoolArray = (weight != 0).reshape(*weight.shape[:2], -1).any(2).cpu().numpy()
    return array


def _padded(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d) or module.padding_mode != "zeros" or module.padding == "valid":
        return False
    if module.padding == "same":
        return max(module.kernel_size) > 1
    return any(module.padding)


def _finite(constants: FloatArray) -> FloatArray:
    return np.where(np.isfinite(constants), constants, np.nan)


def _zero_or_unknown(constants: FloatArray) -> FloatArray:
    """Next to zero padding, only the constant zero stays a constant."""
    return np.where(constants == 0, 0.0, np.nan)


def _applied(function: Callable[[Tensor], Tensor], constants: FloatArray) -> FloatArray:
    given = to_float64(function(torch.from_numpy(constants)))
    return _finite(np.where(np.isnan(constants), np.nan, given))  # a threshold would replace NaN


def _normalised(norm: nn.BatchNorm1d | nn.BatchNorm2d, constants: FloatArray) -> FloatArray:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    given = (constants - to_float64(norm.running_mean)) / np.sqrt(to_float64(norm.running_var) + norm.eps)
    if not norm.affine:
        return _finite(given)
    weight, bias = to_float64(norm.weight), to_float64(norm.bias)
    return _finite(np.where(weight == 0, bias, given * weight + bias))


def _depthwise(conv: nn.Conv2d, x: Channels) -> Channels:
    """Each output has the unit of the input that it depends on."""
    times = conv.out_channels // conv.in_channels
    constants = np.repeat(_zero_or_unknown(x.constants) if _padded(conv) else x.constants, times)
    sums, empty = to_float64(conv.weight).reshape(conv.out_channels, -1).sum(1), ~_nonzero(conv).any(1)
    given = np.where(empty, 0, sums * constants) + bias_of(conv)
    return Channels(np.repeat(x.ids, times), _finite(given), 1)
