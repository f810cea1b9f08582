"""Units: which parts of a network's tensors live and die together, and which of them are constant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tombola.exports.graph import Step

Ids = NDArray[np.int64]
Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Channels:
    """What a tensor has along the axis of its units: channels of images, or features."""

    ids: Ids
    """The unit of each. A flattened image has every unit once for each pixel."""
    constants: Numbers
    """What each always is, whatever the example and the pixel; NaN where that is not known."""
    axis: int


@dataclass(frozen=True)
class CoupledLayer:
    """A module with sizes, what it reads and what it gives."""

    module: nn.Module
    reads: Channels
    gives: Channels

    @property
    def is_product(self) -> bool:
        """Whether every output may read every input: a linear layer, or a convolution of one group."""
        return isinstance(self.module, nn.Linear) or (isinstance(self.module, nn.Conv2d) and self.module.groups == 1)

    @cached_property
    def nonzero(self) -> Flags:
        """Of a product, whether an output has a weight for an input that is not zero: [outputs, inputs]."""
        return _nonzero(self.module)

    @property
    def padded(self) -> bool:
        """Whether it puts zeros around its input, so that there a constant is none."""
        return _padded(self.module)


class CoupledUnits:
    """The units of a network: the same number stands for all that must be kept or removed together.

    Linear layers and convolutions make units; what treats them one by one passes them on; what is added has the same.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self._same: list[int] = []  # as, at last, this one: a forest of numbers
        self._whole: list[Ids] = []
        values: list[Channels] = []
        sized: list[int] = []
        for index, step in enumerate(steps):
            reads = [values[one] for one in step.inputs]
            gives = self._known(step, reads)
            if gives is not None and step.kind in ("linear", "conv", "norm", "subsample"):
                sized.append(index)
            values.append(self._barrier(step, reads) if gives is None else gives)
        roots = np.array([self._find(unit) for unit in range(len(self._same))], dtype=np.int64)
        self.count = len(roots)
        """How many numbers units have; not all of them are used."""
        self.whole: Ids = roots[np.concatenate(self._whole)]
        """Those that cannot go: inputs, outputs, and what is read by steps that nothing is known about."""
        self.values = [replace(value, ids=roots[value.ids]) for value in values]
        """What each step gives."""
        self.layers = [
            CoupledLayer(module, self.values[steps[index].inputs[0]], self.values[index])
            for index in sized
            if (module := steps[index].module) is not None
        ]
        """The modules that can be made smaller, in the order they are called."""

    def _known(self, step: Step, reads: list[Channels]) -> Channels | None:
        """What a step gives; None where its inputs and output have to stay whole."""
        if not reads or step.kind in ("output", "unflatten", "other") or (step.fixed and step.kind != "flatten"):
            return None
        x = reads[0]
        match step.kind:
            case "identity":
                return x
            case "pointwise" if step.function is not None:
                return replace(x, constants=_applied(step.function, x.constants))
            case "linear" if x.axis == len(step.shape) - 1:
                return self._product(step, x)
            case "add" if len({read.axis for read in reads}) == 1:
                for a, b in zip(x.ids, reads[1].ids, strict=True):
                    self._same[self._find(int(a))] = self._find(int(b))
                return replace(x, constants=_finite(x.constants + reads[1].constants))
        return self._of_channels(step, reads) if all(read.axis == 1 for read in reads) else None

    def _of_channels(self, step: Step, reads: list[Channels]) -> Channels | None:
        x, module = reads[0], step.module
        match step.kind:
            case "max-pool":
                return x
            case "average-pool" if step.options is not None:
                borders = step.options.count_include_pad and any(step.options.padding)
                return replace(x, constants=_zero_or_unknown(x.constants)) if borders else x
            case "flatten":
                if step.fixed:
                    self._whole.append(x.ids)
                times = step.shape[1] // len(x.ids)
                return Channels(np.repeat(x.ids, times), np.repeat(x.constants, times), 1)
            case "concatenate":
                ids = np.concatenate([read.ids for read in reads])
                return Channels(ids, np.concatenate([read.constants for read in reads]), 1)
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
        """Every output is a unit of its own; constant if all it reads is."""
        assert isinstance(step.module, nn.Linear | nn.Conv2d)
        axis = len(step.shape) - 1 if isinstance(step.module, nn.Linear) else 1
        constants = _zero_or_unknown(x.constants) if _padded(step.module) else x.constants
        unknown = _nonzero(step.module) @ np.isnan(constants)
        sums = numbers(step.module.weight).reshape(len(unknown), len(constants), -1).sum(2)
        given = sums @ np.nan_to_num(constants) + bias_of(step.module)
        return Channels(self._new(len(unknown)), _finite(np.where(unknown, np.nan, given)), axis)

    def _barrier(self, step: Step, reads: list[Channels]) -> Channels:
        axis = 1 if len(step.shape) in (2, 4) else max(0, len(step.shape) - 1)
        ids = self._new(step.shape[axis] if len(step.shape) > 1 else 0)
        self._whole += [*(read.ids for read in reads), ids]
        return Channels(ids, np.full(len(ids), np.nan), axis)

    def _new(self, count: int) -> Ids:
        first = len(self._same)
        self._same += range(first, first + count)
        return np.arange(first, first + count)

    def _find(self, unit: int) -> int:
        while self._same[unit] != unit:
            self._same[unit] = unit = self._same[self._same[unit]]
        return unit


def numbers(tensor: Tensor) -> Numbers:
    """A copy in double precision."""
    array: Numbers = tensor.detach().cpu().double().numpy().copy()
    return array


def bias_of(module: nn.Linear | nn.Conv2d) -> Numbers:
    """The bias of each output; zeros where there is none."""
    return np.zeros(module.weight.shape[0]) if module.bias is None else numbers(module.bias)


def _nonzero(module: nn.Module) -> Flags:
    assert isinstance(module.weight, Tensor)
    weight = module.weight.detach()
    array: Flags = (weight != 0).reshape(*weight.shape[:2], -1).any(2).cpu().numpy()
    return array


def _padded(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d) or module.padding_mode != "zeros" or module.padding == "valid":
        return False
    if module.padding == "same":
        return max(module.kernel_size) > 1
    return any(module.padding)


def _finite(constants: Numbers) -> Numbers:
    return np.where(np.isfinite(constants), constants, np.nan)


def _zero_or_unknown(constants: Numbers) -> Numbers:
    """Where zeros are put around images, only zero stays what it is."""
    return np.where(constants == 0, 0.0, np.nan)


def _applied(function: Callable[[Tensor], Tensor], constants: Numbers) -> Numbers:
    given = numbers(function(torch.from_numpy(constants)))
    return _finite(np.where(np.isnan(constants), np.nan, given))  # a threshold takes NaN for a number below it


def _normalised(norm: nn.BatchNorm1d | nn.BatchNorm2d, constants: Numbers) -> Numbers:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    given = (constants - numbers(norm.running_mean)) / np.sqrt(numbers(norm.running_var) + norm.eps)
    if not norm.affine:
        return _finite(given)
    weight, bias = numbers(norm.weight), numbers(norm.bias)
    return _finite(np.where(weight == 0, bias, given * weight + bias))


def _depthwise(conv: nn.Conv2d, x: Channels) -> Channels:
    """Outputs belong to the unit they are of."""
    times = conv.out_channels // conv.in_channels
    constants = np.repeat(_zero_or_unknown(x.constants) if _padded(conv) else x.constants, times)
    sums, empty = numbers(conv.weight).reshape(conv.out_channels, -1).sum(1), ~_nonzero(conv).any(1)
    given = np.where(empty, 0, sums * constants) + bias_of(conv)
    return Channels(np.repeat(x.ids, times), _finite(given), 1)
