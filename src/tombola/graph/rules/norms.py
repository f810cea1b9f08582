"""Normalisation."""

from __future__ import annotations

from typing import Any

from torch import nn

from tombola.graph.follower import Follower, Norm, Rule, Value, no_units
from tombola.graph.recording import Shape, TensorIndex
from tombola.graph.rules.elementwise import combined
from tombola.graph.rules.products import broadcast
from tombola.graph.ties import along


def batch_normalised(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    """One channel at a time."""
    names = ("weight", "bias", "running_mean", "running_var")
    return _per_channel(follower, arguments, names, 1)


def group_normalised(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    """A group stays or goes as a whole: its channels are normalised together."""
    units = follower.settle(follower.of(arguments["input"]), 1)
    if type(follower.module) is not nn.GroupNorm:
        follower.fix(units, "has a number of groups in its code")
    follower.ties.merge(units.view(arguments["group"], -1), [1])
    return _per_channel(follower, arguments, ("weight", "bias"), 1)


def layer_normalised(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    """Over the last axis of a layer of torch, units that are zero can be left out; others cannot."""
    value = follower.of(arguments["input"])
    known = len(arguments["normalized_shape"]) == 1 and type(follower.module) is nn.LayerNorm
    units = follower.settle(value, -1)
    if known:
        follower.norms.append(Norm(units.long().numpy(), follower.position))
    else:
        follower.fix(value.units, "normalises over them")
    return _per_channel(follower, arguments, ("weight", "bias"), -1)


def _per_channel(follower: Follower, arguments: dict[str, Any], names: tuple[str, ...], axis: int) -> list[Value]:
    """The input's units, and those of the parameters along the same axis."""
    first, *rest = no_units(follower)
    shape: Shape = tuple(first.units.shape)
    units = follower.settle(follower.of(arguments["input"]), axis)
    given = [follower.of(arguments[name]) for name in names if isinstance(arguments.get(name), TensorIndex)]
    operands = [Value(along(units, axis, shape)), *(broadcast(value, axis, shape) for value in given)]
    return [combined(follower, operands, shape), *rest]


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        [
            "aten.native_batch_norm", "aten._native_batch_norm_legit", "aten._native_batch_norm_legit_no_training",
            "aten._batch_norm_no_update", "aten._batch_norm_with_update", "aten.cudnn_batch_norm",
            "aten.miopen_batch_norm", "aten.batch_norm", "aten._batch_norm_impl_index",
        ],
        batch_normalised,
    ),
    "aten.native_group_norm": group_normalised,
    "aten.native_layer_norm": layer_normalised,
    "aten._fused_rms_norm": layer_normalised,
}  # fmt: skip
