"""Operations along axes: sums, softmax, pooling."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tombola.graph.follower import Follower, Norm, Rule, Value, no_units, varies_somewhere
from tombola.graph.ties import NONE, along, none, varies


def reduced(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    """What is summed up, or the like, is tied. Units that have no axis left cannot be removed: the sum reads them,
    with no weight that could be zero."""
    source = arguments["self"]
    value = follower.of(source)
    if follower.position not in follower.graph.needed:
        return no_units(follower)
    if value.is_weight:
        return [Value(none(shape), value.sources[:0], computed=True) for shape in follower.output_shapes()]
    axes = _axes(arguments.get("dim"), value.units.dim())
    if _is_rms_norm(follower) and axes == [value.units.dim() - 1] and varies(value.units, -1):
        units = follower.settle(value, -1)
        follower.norms.append(Norm(units.long().numpy(), follower.position))
        return no_units(follower)
    merged = _mixed(follower, value, axes)
    if any(varies(value.units, axis) for axis in axes) and not varies_somewhere(merged):
        follower.fix(merged, "sums over them")
        merged = none(merged.shape)
    shapes = follower.output_shapes()
    first = merged if arguments.get("keepdim") else merged.amax(axes) if axes else merged
    return [Value(first.reshape(shape) if first.numel() else none(shape)) for shape in shapes]


def mixed(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    """What is normalised together, as by softmax, is tied."""
    value = follower.of(arguments["self"])
    if follower.position not in follower.graph.needed:
        return no_units(follower)
    merged = _mixed(follower, value, _axes(arguments.get("dim"), value.units.dim()))
    shapes = follower.output_shapes()
    if any(shape != tuple(value.units.shape) for shape in shapes):
        follower.fix(value.units, "selects among them")
        return no_units(follower)
    return [Value(merged.expand(shape)) for shape in shapes]


def pooled(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    """Pooling, resampling and padding of images: what is computed of each channel by itself."""
    value = follower.of(arguments["self"])
    sides = int(next(filter(str.isdigit, follower.operation.name)))
    merged = along(follower.settle(value, -sides - 1), 0, value.units.shape[-sides - 1 :])
    first = merged[(slice(None), *[slice(1)] * sides)]
    return [Value(first.expand(shape)) for shape in follower.output_shapes()]


def gated(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    """GLU: the second half gates the first."""
    units, axis = follower.of(arguments["self"]).units, arguments["dim"]
    half = units.shape[axis] // 2
    first, second = units.narrow(axis, 0, half), units.narrow(axis, half, half)
    follower.ties.tie(first, second)
    return [Value(first)]


def _mixed(follower: Follower, value: Value, axes: list[int]) -> Tensor:
    units = value.units
    if any(varies(units, axis) for axis in axes) and bool((units.amax(axes) != NONE).any()):
        partly = (units.amin(axes, keepdim=True) == NONE) & (units.amax(axes, keepdim=True) != NONE)
        if partly.any():
            follower.fix(units.masked_fill(~partly, NONE), "mixes them with others")
    return follower.ties.merge(units, axes)


def _axes(given: Any, count: int) -> list[int]:
    axes = [given] if isinstance(given, int) else list(given or range(count))
    return [axis % count for axis in axes] if count else []


def _is_rms_norm(follower: Follower) -> bool:
    """Whether the present operation is part of an RMS norm, of torch or of Hugging Face's models."""
    module, name = follower.module, type(follower.module).__name__
    theirs = hasattr(module, "variance_epsilon") and ("RMSNorm" in name or name == "T5LayerNorm")
    return theirs or type(module) is nn.RMSNorm


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        [
            f"aten.{name}"
            for name in (
                "mean", "sum", "amax", "amin", "max", "min", "prod", "var", "std", "var_mean", "std_mean",
                "logsumexp",
                "linalg_vector_norm", "norm", "argmax", "argmin", "any", "all", "median", "aminmax", "nansum",
            )
        ],
        reduced,
    ),
    **dict.fromkeys(
        [f"aten.{name}" for name in ("_softmax", "_log_softmax", "softmax", "log_softmax", "_safe_softmax", "cumsum",
                                     "cumprod", "logcumsumexp", "sort", "argsort", "topk")],
        mixed,
    ),
    **dict.fromkeys(
        [
            f"aten.{name}{sides}d{end}"
            for sides in "123"
            for name, end in (
                ("max_pool", ""), ("max_pool", "_with_indices"), ("avg_pool", ""), ("_adaptive_avg_pool", ""),
                ("adaptive_avg_pool", ""), ("adaptive_max_pool", ""), ("fractional_max_pool", ""),
                ("upsample_nearest", ""), ("_upsample_nearest_exact", ""), ("reflection_pad", ""),
                ("replication_pad", ""), ("upsample_bilinear", ""), ("upsample_bicubic", ""), ("upsample_linear", ""),
                ("upsample_trilinear", ""), ("_upsample_bilinear", "_aa"), ("_upsample_bicubic", "_aa"),
            )
        ],
        pooled,
    ),
    "aten.glu": gated,
}  # fmt: skip
