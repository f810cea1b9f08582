"""Recognise: what modules, functions and methods do to their tensors, in the words of a graph's steps."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.zoo.models.resnet import Subsample

Pair = tuple[int, int]


@dataclass(frozen=True)
class Pooling:
    """How a step pools, whatever it is written as; (height, width) each. Adaptive pooling to a size that divides the
    image and the mean over all pixels are pooling with a kernel of their own size."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False
    count_include_pad: bool = True
    """Of averages: whether padding counts as pixels."""


@dataclass(frozen=True)
class Value:
    """Stands for a tensor among the arguments of a call."""

    index: int
    """Of the step that gives it."""
    shape: tuple[int, ...]
    dtype: torch.dtype


class Computed(int):
    """A number among the arguments that the network computes, from a shape say, instead of writing it down."""


@dataclass(frozen=True)
class Seen:
    """What a call is, as the fields of a step."""

    kind: str
    reads: tuple[Value, ...]
    function: Callable[[Tensor], Tensor] | None = None
    options: Pooling | None = None
    fixed: bool = False


@dataclass(frozen=True)
class Applied:
    """A function with all its arguments but one tensor; that is never changed in place."""

    function: Callable[..., Tensor]
    before: tuple[Any, ...] = ()
    after: tuple[Any, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(*self.before, x.clone(), *self.after, **dict(self.options))


def of_module(module: nn.Module, arguments: Sequence[Any], options: dict[str, Any]) -> Seen | None:
    """What calling `module` is; None for what the graph has no word for. A subclass is something else."""
    rule = _MODULES.get(type(module))
    if rule is None or options or len(arguments) != 1 or not isinstance(arguments[0], Value):
        return None
    return rule(module, arguments[0])


def of_function(
    target: Callable[..., Any] | str, arguments: Sequence[Any], options: dict[str, Any], literal: bool
) -> Seen | None:
    """The same for a function, or a method by its name. `literal`: none of the numbers is computed by the network."""
    rule = _FUNCTIONS.get(target)
    if rule is not None:
        try:
            inspect.signature(rule).bind(*arguments, **options)
        except TypeError:  # called in some way that is not covered here
            return None
        seen = rule(*arguments, **options)
        if seen is not None:
            return seen
    name = target.removesuffix("_") if isinstance(target, str) else target
    return _pointwise(name, arguments, options) if literal and name in _POINTWISE else None


def _pointwise(target: Callable[..., Any] | str, arguments: Sequence[Any], options: dict[str, Any]) -> Seen | None:
    at = [index for index, argument in enumerate(arguments) if isinstance(argument, Value)]
    numbers = [argument for argument in (*arguments, *options.values()) if not isinstance(argument, Value)]
    if len(at) != 1 or not all(isinstance(number, int | float | str | None) for number in numbers):
        return None
    (here,) = at
    function = getattr(torch.Tensor, target) if isinstance(target, str) else target
    applied = Applied(function, tuple(arguments[:here]), tuple(arguments[here + 1 :]), tuple(options.items()))
    return Seen("pointwise", (arguments[here],), applied)


def _relu(x: Any, inplace: bool = False) -> Seen | None:  # noqa: ARG001 - as it is called
    return Seen("pointwise", (x,), torch.relu) if isinstance(x, Value) else None


def _identity(x: Any, *_: Any, **__: Any) -> Seen | None:
    return Seen("identity", (x,)) if isinstance(x, Value) else None


def _dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Seen | None:  # noqa: ARG001
    return None if training else _identity(x)


def _pair(value: Any) -> Pair:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[-1]))


def _is_images(x: Any) -> bool:
    return isinstance(x, Value) and len(x.shape) == 4  # with three axes, torch reads one image instead of a batch


def _max_pool(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Seen | None:
    if not _is_images(x) or return_indices:
        return None
    pooling = Pooling(_pair(kernel_size), _pair(stride or kernel_size), _pair(padding), _pair(dilation), ceil_mode)
    return Seen("max-pool", (x,), options=pooling)


def _average_pool(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Seen | None:
    if not _is_images(x) or divisor_override is not None:
        return None
    kernel, steps = _pair(kernel_size), _pair(stride or kernel_size)
    pooling = Pooling(kernel, steps, _pair(padding), (1, 1), ceil_mode, count_include_pad)
    return Seen("average-pool", (x,), options=pooling)


def _adaptive(kind: str, x: Any, output_size: Any) -> Seen | None:
    if not _is_images(x):
        return None
    sides = x.shape[2:]
    wanted = (output_size, output_size) if isinstance(output_size, int | None) else tuple(output_size)
    out = [side if want is None else want for side, want in zip(sides, wanted, strict=True)]
    if any(want < 1 or side % want for side, want in zip(sides, out, strict=True)):
        return None
    kernel = (sides[0] // out[0], sides[1] // out[1])
    return Seen(kind, (x,), options=Pooling(kernel, kernel))


def _adaptive_average(x: Any, output_size: Any) -> Seen | None:
    return _adaptive("average-pool", x, output_size)


def _adaptive_max(x: Any, output_size: Any, return_indices: bool = False) -> Seen | None:
    return None if return_indices else _adaptive("max-pool", x, output_size)


def _mean(x: Any, dim: Any = None, keepdim: bool = False) -> Seen | None:  # noqa: ARG001 - the step's shape shows it
    if not _is_images(x) or not isinstance(dim, tuple | list) or sorted(one % 4 for one in dim) != [2, 3]:
        return None
    return Seen("average-pool", (x,), options=Pooling(x.shape[2:], x.shape[2:]))


def _flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Seen | None:
    axes = len(x.shape)
    whole = axes > 1 and start_dim % axes == 1 and end_dim % axes == axes - 1
    return Seen("flatten", (x,)) if whole else None


def _view(x: Any, *shape: Any) -> Seen | None:
    sizes = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    if len(sizes) != 2 or len(x.shape) < 2 or not all(isinstance(size, int) for size in sizes):
        return None
    examples, features = sizes
    if examples != -1 and not (isinstance(examples, Computed) and examples == x.shape[0]):
        return None
    if features not in (-1, math.prod(x.shape[1:])):
        return None
    return Seen("flatten", (x,), fixed=features != -1 and not isinstance(features, Computed))


def _unflatten(x: Value, dim: int, sizes: Sequence[int]) -> Seen | None:
    gives_a_channel = len(x.shape) == 3 and dim % 3 == 1 and tuple(sizes) == (1, x.shape[1])
    return Seen("unflatten", (x,)) if gives_a_channel else None


def _unsqueeze(x: Any, dim: int) -> Seen | None:
    return Seen("unflatten", (x,)) if len(x.shape) == 3 and dim in (1, -3) else None


def _add(x: Any, y: Any, alpha: float = 1) -> Seen | None:
    both = isinstance(x, Value) and isinstance(y, Value) and x.shape == y.shape
    return Seen("add", (x, y)) if both and alpha == 1 else None


def _concatenate(tensors: Any, dim: int = 0, axis: int | None = None) -> Seen | None:
    if not isinstance(tensors, tuple | list) or not all(isinstance(one, Value) for one in tensors):
        return None
    along = (dim if axis is None else axis) % len(tensors[0].shape)
    return Seen("concatenate", tuple(tensors)) if along == 1 else None


def _norm(axes: tuple[int, ...]) -> Callable[[Any, Value], Seen | None]:
    def rule(module: Any, x: Value) -> Seen | None:
        fixed_statistics = module.running_mean is not None
        return Seen("norm", (x,)) if fixed_statistics and len(x.shape) in axes else None

    return rule


_MODULES: dict[type[nn.Module], Callable[[Any, Value], Seen | None]] = {
    nn.Linear: lambda _, x: Seen("linear", (x,)) if len(x.shape) > 1 else None,
    nn.Conv2d: lambda _, x: Seen("conv", (x,)) if _is_images(x) else None,
    nn.BatchNorm1d: _norm((2, 3)),
    nn.BatchNorm2d: _norm((4,)),
    nn.ReLU: lambda _, x: _relu(x),
    nn.MaxPool2d: lambda m, x: _max_pool(
        x, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices
    ),
    nn.AvgPool2d: lambda m, x: _average_pool(
        x, m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override
    ),
    nn.AdaptiveAvgPool2d: lambda m, x: _adaptive_average(x, m.output_size),
    nn.AdaptiveMaxPool2d: lambda m, x: _adaptive_max(x, m.output_size, m.return_indices),
    nn.Flatten: lambda m, x: _flatten(x, m.start_dim, m.end_dim),
    nn.Unflatten: lambda m, x: _unflatten(x, m.dim, m.unflattened_size) if isinstance(m.dim, int) else None,
    Subsample: lambda _, x: Seen("subsample", (x,)) if _is_images(x) else None,
}
_POINTWISE_MODULES: list[type[nn.Module]] = [
    nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.SELU, nn.CELU, nn.Sigmoid, nn.LogSigmoid, nn.Tanh,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.Softsign, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink,
    nn.Threshold,
]  # fmt: skip
_IDENTITY_MODULES: list[type[nn.Module]] = [
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
]  # fmt: skip
_MODULES |= dict.fromkeys(_POINTWISE_MODULES, lambda module, x: Seen("pointwise", (x,), Applied(module)))
_MODULES |= dict.fromkeys(_IDENTITY_MODULES, lambda _, x: _identity(x))

_RULES: list[tuple[Callable[..., Seen | None], list[Callable[..., Any] | str]]] = [
    (_relu, [torch.relu, torch.relu_, functional.relu, functional.relu_, "relu", "relu_"]),
    (_identity, ["contiguous", "clone", "detach", "float"]),
    (_dropout, [functional.dropout, functional.dropout2d, functional.alpha_dropout]),
    (_max_pool, [functional.max_pool2d, torch.max_pool2d]),
    (_average_pool, [functional.avg_pool2d]),
    (_adaptive_average, [functional.adaptive_avg_pool2d]),
    (_adaptive_max, [functional.adaptive_max_pool2d]),
    (_mean, [torch.mean, "mean"]),
    (_flatten, [torch.flatten, "flatten"]),
    (_view, [torch.reshape, "view", "reshape"]),
    (_unsqueeze, [torch.unsqueeze, "unsqueeze"]),
    (_add, [operator.add, operator.iadd, torch.add, "add", "add_"]),
    (_concatenate, [torch.cat, torch.concat, torch.concatenate]),
]
"""What each function, or method by its name, is read by; the rules have the arguments of what they read."""
_FUNCTIONS = {name: rule for rule, names in _RULES for name in names}

_POINTWISE: set[Callable[..., Any] | str] = {
    functional.relu6, functional.leaky_relu, functional.gelu, functional.silu, functional.mish, functional.elu,
    functional.selu, functional.celu, functional.sigmoid, functional.logsigmoid, functional.tanh,
    functional.hardswish, functional.hardsigmoid, functional.hardtanh, functional.softplus, functional.softsign,
    torch.sigmoid, torch.tanh, torch.exp, torch.sin, torch.abs, torch.square, torch.neg, torch.clamp, torch.pow,
    torch.add, torch.sub, torch.mul, torch.div,
    operator.add, operator.iadd, operator.sub, operator.isub, operator.mul, operator.imul, operator.truediv,
    operator.itruediv, operator.neg, operator.pow,
    "sigmoid", "tanh", "exp", "sin", "abs", "square", "neg", "clamp", "pow", "add", "sub", "mul", "div",
}  # fmt: skip
"""Functions, and methods by name, that treat every number by itself, if all else they are given are plain numbers."""
