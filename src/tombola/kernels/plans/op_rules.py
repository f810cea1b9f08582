"""Op rules: recognise what modules, functions and methods compute, as kinds of steps."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tombola.kernels.plans.op_match import BoundFunction, DynamicInt, OpMatch, Pair, Pooling, TensorRef, is_images
from tombola.zoo.models.resnet import Subsample


def of_module(module: nn.Module, arguments: Sequence[Any], options: dict[str, Any]) -> OpMatch | None:
    """What calling `module` computes; None if it is not recognised. A subclass is not, nor one in training mode."""
    arguments, options = _input_first(arguments, options)
    rule = _MODULES.get(type(module))
    if rule is None or options or len(arguments) != 1 or not isinstance(arguments[0], TensorRef):
        return None
    real = not any(tensor.is_complex() for tensor in module.parameters(recurse=False))
    return rule(module, arguments[0]) if real and not module.training else None


def of_function(
    target: Callable[..., Any] | str, arguments: Sequence[Any], options: dict[str, Any], literal: bool
) -> OpMatch | None:
    """What a function, or a method by its name, computes; None if it is not recognised.

    `literal`: none of the numbers among the arguments is computed by the network.
    """
    arguments, options = _input_first(arguments, options)
    rule = _FUNCTIONS.get(target)
    if rule is not None:
        try:
            inspect.signature(rule).bind(*arguments, **options)
        except TypeError:  # a way to call it that the rule does not cover
            return None
        match = rule(*arguments, **options)
        if match is not None:
            return match
    name = target.removesuffix("_") if isinstance(target, str) else target
    return _pointwise(name, arguments, options) if literal and name in _POINTWISE else None


def _input_first(arguments: Sequence[Any], options: dict[str, Any]) -> tuple[Sequence[Any], dict[str, Any]]:
    """The arguments of a call, `input` as the first, which is its place in all functions and modules of torch."""
    if arguments or "input" not in options:
        return arguments, options
    return (options["input"],), {name: value for name, value in options.items() if name != "input"}


def _pointwise(target: Callable[..., Any] | str, arguments: Sequence[Any], options: dict[str, Any]) -> OpMatch | None:
    at = [index for index, argument in enumerate(arguments) if isinstance(argument, TensorRef)]
    numbers = [argument for argument in (*arguments, *options.values()) if not isinstance(argument, TensorRef)]
    if len(at) != 1 or not all(isinstance(number, int | float | str | None) for number in numbers):
        return None
    (here,) = at
    function = getattr(torch.Tensor, target) if isinstance(target, str) else target
    applied = BoundFunction(function, tuple(arguments[:here]), tuple(arguments[here + 1 :]), tuple(options.items()))
    return OpMatch("pointwise", (arguments[here],), applied)


def _relu(x: Any, inplace: bool = False) -> OpMatch | None:  # noqa: ARG001 - the parameters of the function
    return OpMatch("pointwise", (x,), torch.relu) if isinstance(x, TensorRef) else None


def _identity(x: Any, *_: Any, **__: Any) -> OpMatch | None:
    return OpMatch("identity", (x,)) if isinstance(x, TensorRef) else None


def _dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> OpMatch | None:  # noqa: ARG001
    return None if training else _identity(x)


def _flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> OpMatch | None:
    axes = len(x.shape)
    whole = axes > 1 and start_dim % axes == 1 and end_dim % axes == axes - 1
    return OpMatch("flatten", (x,)) if whole else None


def _view(x: Any, *shape: Any) -> OpMatch | None:
    sizes = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    if len(sizes) != 2 or len(x.shape) < 2 or not all(isinstance(size, int) for size in sizes):
        return None
    examples, features = sizes
    if examples != -1 and not (isinstance(examples, DynamicInt) and examples == x.shape[0]):
        return None
    if features not in (-1, math.prod(x.shape[1:])):
        return None
    return OpMatch("flatten", (x,), fixed=features != -1 and not isinstance(features, DynamicInt))


def _unflatten(x: TensorRef, dim: int, sizes: Sequence[int]) -> OpMatch | None:
    gives_a_channel = len(x.shape) == 3 and dim % 3 == 1 and tuple(sizes) == (1, x.shape[1])
    return OpMatch("unflatten", (x,)) if gives_a_channel else None


def _unsqueeze(x: Any, dim: int) -> OpMatch | None:
    return OpMatch("unflatten", (x,)) if len(x.shape) == 3 and dim in (1, -3) else None


def _add(x: Any, y: Any, alpha: float = 1) -> OpMatch | None:
    both = isinstance(x, TensorRef) and isinstance(y, TensorRef) and x.shape == y.shape
    return OpMatch("add", (x, y)) if both and alpha == 1 else None


def _concatenate(tensors: Any, dim: int = 0, axis: int | None = None) -> OpMatch | None:
    if not isinstance(tensors, tuple | list) or not all(isinstance(one, TensorRef) for one in tensors):
        return None
    along = (dim if axis is None else axis) % len(tensors[0].shape)
    return OpMatch("concatenate", tuple(tensors)) if along == 1 else None


def _norm(module: Any, x: TensorRef, *axes: int) -> OpMatch | None:
    fixed_statistics = module.running_mean is not None
    return OpMatch("norm", (x,)) if fixed_statistics and len(x.shape) in axes else None


def _pair(value: Any) -> Pair:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[-1]))


def _max_pool(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> OpMatch | None:
    if not is_images(x) or return_indices:
        return None
    pooling = Pooling(_pair(kernel_size), _pair(stride or kernel_size), _pair(padding), _pair(dilation), ceil_mode)
    return OpMatch("max-pool", (x,), options=pooling)


def _average_pool(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> OpMatch | None:
    if not is_images(x) or divisor_override is not None:
        return None
    kernel, steps = _pair(kernel_size), _pair(stride or kernel_size)
    pooling = Pooling(kernel, steps, _pair(padding), (1, 1), ceil_mode, count_include_pad)
    return OpMatch("average-pool", (x,), options=pooling)


def _adaptive_pool(kind: str, x: Any, output_size: Any) -> OpMatch | None:
    if not is_images(x):
        return None
    sides = x.shape[2:]
    wanted = (output_size, output_size) if isinstance(output_size, int | None) else tuple(output_size)
    out = [side if want is None else want for side, want in zip(sides, wanted, strict=True)]
    if any(want < 1 or side % want for side, want in zip(sides, out, strict=True)):
        return None
    kernel = (sides[0] // out[0], sides[1] // out[1])
    return OpMatch(kind, (x,), options=Pooling(kernel, kernel))


def _adaptive_average_pool(x: Any, output_size: Any) -> OpMatch | None:
    return _adaptive_pool("average-pool", x, output_size)


def _adaptive_max_pool(x: Any, output_size: Any, return_indices: bool = False) -> OpMatch | None:
    return None if return_indices else _adaptive_pool("max-pool", x, output_size)


def _mean(x: Any, dim: Any = None, keepdim: bool = False) -> OpMatch | None:  # noqa: ARG001 - the step's shape shows it
    if not is_images(x) or not isinstance(dim, tuple | list) or sorted(one % 4 for one in dim) != [2, 3]:
        return None
    return OpMatch("average-pool", (x,), options=Pooling(x.shape[2:], x.shape[2:]))


_MODULES: dict[type[nn.Module], Callable[[Any, TensorRef], OpMatch | None]] = {
    nn.Linear: lambda _, x: OpMatch("linear", (x,)) if len(x.shape) > 1 else None,
    nn.Conv2d: lambda _, x: OpMatch("conv", (x,)) if is_images(x) else None,
    nn.BatchNorm1d: lambda m, x: _norm(m, x, 2, 3),
    nn.BatchNorm2d: lambda m, x: _norm(m, x, 4),
    nn.ReLU: lambda _, x: _relu(x),
    nn.MaxPool2d: lambda m, x: _max_pool(
        x, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices
    ),
    nn.AvgPool2d: lambda m, x: _average_pool(
        x, m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override
    ),
    nn.AdaptiveAvgPool2d: lambda m, x: _adaptive_average_pool(x, m.output_size),
    nn.AdaptiveMaxPool2d: lambda m, x: _adaptive_max_pool(x, m.output_size, m.return_indices),
    nn.Flatten: lambda m, x: _flatten(x, m.start_dim, m.end_dim),
    nn.Unflatten: lambda m, x: _unflatten(x, m.dim, m.unflattened_size) if isinstance(m.dim, int) else None,
    Subsample: lambda _, x: OpMatch("subsample", (x,)) if is_images(x) else None,
}
_POINTWISE_MODULES: list[type[nn.Module]] = [
    nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.SELU, nn.CELU, nn.Sigmoid, nn.LogSigmoid, nn.Tanh,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.Softsign, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink,
    nn.Threshold,
]  # fmt: skip
_IDENTITY_MODULES: list[type[nn.Module]] = [
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
]  # fmt: skip
_MODULES |= dict.fromkeys(_POINTWISE_MODULES, lambda module, x: OpMatch("pointwise", (x,), BoundFunction(module)))
_MODULES |= dict.fromkeys(_IDENTITY_MODULES, lambda _, x: _identity(x))

_RULES: list[tuple[Callable[..., OpMatch | None], list[Callable[..., Any] | str]]] = [
    (_relu, [torch.relu, torch.relu_, functional.relu, functional.relu_, "relu", "relu_"]),
    (_identity, ["contiguous", "clone", "detach", "float"]),
    (_dropout, [functional.dropout, functional.dropout2d, functional.alpha_dropout]),
    (_max_pool, [functional.max_pool2d, torch.max_pool2d]),
    (_average_pool, [functional.avg_pool2d]),
    (_adaptive_average_pool, [functional.adaptive_avg_pool2d]),
    (_adaptive_max_pool, [functional.adaptive_max_pool2d]),
    (_mean, [torch.mean, "mean"]),
    (_flatten, [torch.flatten, "flatten"]),
    (_view, [torch.reshape, "view", "reshape"]),
    (_unsqueeze, [torch.unsqueeze, "unsqueeze"]),
    (_add, [operator.add, operator.iadd, torch.add, "add", "add_"]),
    (_concatenate, [torch.cat, torch.concat, torch.concatenate]),
]
"""The rule of each function, or method by name. A rule has the parameters of the function."""
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
"""Functions, and methods by name, that are elementwise if all other arguments are plain numbers."""
