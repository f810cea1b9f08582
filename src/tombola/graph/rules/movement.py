"""Operations that only move elements: the units move with them, by the same operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tombola.graph.follower import Follower, Rule, Source, Value
from tombola.graph.recording import TensorIndex
from tombola.graph.ties import NONE, along, none, others, varies

COPYING = {"aten.view": torch.ops.aten.reshape, "aten._unsafe_view": torch.ops.aten.reshape}
"""Operators that do not take tensors of any strides -> those that do."""
_FILLING = ("aten.im2col",)
"""Operators that add elements."""


def moved(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    """Apply the operator itself to the units, and to the coordinates of parameters."""
    del arguments
    operation = follower.operation
    given = (operation.arguments, operation.options)
    found = [follower.of(leaf) for leaf in pytree.tree_leaves(given) if isinstance(leaf, TensorIndex)]
    function = COPYING.get(operation.name, operation.function)

    def move(tensor_of: Callable[[TensorIndex], Tensor]) -> list[Tensor]:
        shift = 1 if operation.name in _FILLING else 0  # what they fill in is zero, which becomes NONE
        shifted = pytree.tree_map_only(
            TensorIndex, lambda ref: tensor_of(ref) + shift if shift else tensor_of(ref), given
        )
        results = [
            each for each in pytree.tree_leaves(function(*shifted[0], **shifted[1])) if isinstance(each, Tensor)
        ]
        return [each - shift for each in results] if shift else results

    units = move(lambda ref: follower.of(ref).units)
    sources: list[list[Source]] = [[] for _ in units]
    for value in found:
        for source in value.sources:
            axes = [move(partial(_coordinate, follower, source, at)) for at in range(len(source.coordinates))]
            for output, each in enumerate(zip(*axes, strict=True)):
                if (each[0] >= 0).any():
                    sources[output].append(Source(source.name, each))
    computed = any(value.computed for value in found)
    return [Value(each, tuple(of), computed) for each, of in zip(units, sources, strict=True)]


def _coordinate(follower: Follower, source: Source, axis: int, ref: TensorIndex) -> Tensor:
    """The coordinates of `source` in a tensor; `NONE` where it has others."""
    return _coordinate_of(follower.of(ref), source, axis)


def _coordinate_of(value: Value, source: Source, axis: int) -> Tensor:
    return source.coordinates[axis] if any(each is source for each in value.sources) else none(value.units.shape)


def written(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    """What has changed in place of a tensor takes the place of what was there."""
    base, part = follower.of(arguments["self"]), follower.of(arguments["src"])
    layout = (arguments["size"], arguments["stride"], arguments["storage_offset"])

    def write(before: Tensor, after: Tensor) -> Tensor:
        return torch.as_strided_scatter(before.contiguous(), after, *layout)

    sources = []
    for source in (*base.sources, *part.sources):
        axes = range(len(source.coordinates))
        pairs = [(_coordinate_of(base, source, axis), _coordinate_of(part, source, axis)) for axis in axes]
        sources.append(Source(source.name, tuple(write(*pair) for pair in pairs)))
    return [Value(write(base.units, part.units), tuple(sources), base.computed or part.computed)]


def kept(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    """The same elements at the same places."""
    return [follower.of(next(iter(arguments.values())))]


def viewed(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    """Of an axis that is divided in several, as many have to be kept in each part; so have parts that are stacked."""
    values = moved(follower, arguments)
    for value in values:
        follower.split(value.units)
    return values


def selected(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    """What is selected by its place must stay where it is: the axis keeps its size."""
    source = arguments["self"]
    follower.ties.merge(follower.of(source).units, _varying(follower, source, [arguments.get("dim", 0)]))
    return moved(follower, arguments)


def divided(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    """Parts of equal size stay of equal size: their units are tied in order. Other sizes are fixed."""
    values = moved(follower, arguments)
    units, axis = follower.of(arguments["self"]).units, arguments.get("dim", 0)
    if varies(units, axis):
        parts = [value.units for value in values]
        if len({part.shape for part in parts}) == 1:
            for part in parts[1:]:
                follower.ties.tie(part, parts[0])
        else:
            follower.fix(units, "cuts them into parts of unequal sizes")
    return values


def sliced(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    """A slice that is one of several equal parts of an axis is like one part of a division; others are fixed."""
    values = moved(follower, arguments)
    units, axis = follower.of(arguments["self"]).units, arguments["dim"] or 0
    size, length = units.shape[axis], values[0].units.shape[axis]
    if not varies(units, axis) or length == size:
        return values
    start = arguments["start"] or 0
    start = min(size, start + size if start < 0 else start)
    if arguments["step"] == 1 and length and size % length == 0 and start % length == 0:
        parts = _in_parts(units, axis, size // length)
        follower.ties.merge(parts, [axis % units.dim()])
    else:
        follower.fix(units, "takes a part of them by literal positions")
    return values


def fixed_where_moved(*names: str) -> Rule:
    """A rule for an operator that moves elements along the axes of the arguments of these `names`, by numbers that
    do not follow the size."""

    def rule(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
        units = follower.of(arguments["self"]).units
        axes: list[int] = []
        for name in names:
            axes += arguments[name] if isinstance(arguments[name], list | tuple) else [arguments[name]]
        if any(varies(units, axis) for axis in axes or range(units.dim())):
            follower.fix(units, "moves them by literal positions")
        return moved(follower, arguments)

    return rule


def indexed(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    """Elements at given indices along some axes; along these, units cannot change."""
    source = arguments["self"]
    value, indices = follower.of(source), arguments.get("indices")
    axes = [arguments["dim"]] if indices is None else [axis for axis, each in enumerate(indices) if each is not None]
    if any(varies(value.units, axis) for axis in axes):
        follower.fix(value.units, "selects them by indices")
    operation = follower.operation

    def run(tensor: Tensor) -> Tensor:
        def stand_in(ref: TensorIndex) -> Tensor:
            return tensor + 1 if ref == source else torch.zeros(follower.shape(ref), dtype=torch.long)

        given = pytree.tree_map_only(TensorIndex, stand_in, (operation.arguments, operation.options))
        result: Tensor = operation.function(*given[0], **given[1])
        return result - 1

    return [value.map(run)]


def shuffled(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    """Channel shuffle: of each group as many are kept."""
    units, groups = follower.of(arguments["self"]).units, arguments["groups"]
    follower.split(_in_parts(units, 1, groups))
    return moved(follower, arguments)


def _in_parts(units: Tensor, axis: int, parts: int) -> Tensor:
    """With an axis divided into `parts` and what each of these has."""
    axis %= units.dim()
    return units.reshape(*units.shape[:axis], parts, -1, *units.shape[axis + 1 :])


def padded(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    """Constant padding. What is added has no units, except along an axis of units: a shortcut of fewer channels."""
    source, pad = arguments["self"], arguments["pad"]

    def pad_with_none(tensor: Tensor) -> Tensor:
        return torch.constant_pad_nd(tensor, pad, float(NONE))

    value = follower.of(source)
    result = value.map(pad_with_none)
    units = result.units
    for axis in range(units.dim()):
        if units.shape[axis] > value.units.shape[axis] and varies(value.units, axis):
            added = pad_with_none(torch.zeros(value.units.shape)).amax(others(units, axis)) == NONE
            new = torch.full((len(added),), float(NONE), dtype=torch.float64)
            new[added] = follower.ties.new(int(added.sum()))
            follower.padding.append(new[added])
            units = torch.maximum(units, along(new, axis, units.shape))
    return [replace(result, units=units)]


def _varying(follower: Follower, ref: TensorIndex, axes: Sequence[int]) -> list[int]:
    units = follower.of(ref).units
    return [axis % units.dim() for axis in axes if varies(units, axis)]


def _names(*names: str) -> list[str]:
    return [f"aten.{name}" for name in names]


RULES: dict[str, Rule] = {
    **dict.fromkeys(_names("detach", "alias", "clone", "contiguous", "lift_fresh", "positive"), kept),
    **dict.fromkeys(
        _names("view", "_unsafe_view", "reshape", "unflatten", "_reshape_alias", "flatten", "cat", "stack"), viewed
    ),
    **dict.fromkeys(
        _names(
            "permute", "transpose", "t", "expand", "unsqueeze", "squeeze", "flip", "repeat",
            "movedim",
            "pixel_shuffle", "pixel_unshuffle", "im2col", "tile", "numpy_T", "adjoint", "unsqueeze_", "squeeze_",
            "transpose_", "t_", "expand_copy", "view_as_real", "repeat_interleave", "broadcast_to",
        ),
        moved,
    ),
    **dict.fromkeys(_names("select", "unbind"), selected),
    **dict.fromkeys(
        _names("split", "chunk", "split_with_sizes", "unsafe_split", "unsafe_chunk", "tensor_split"), divided
    ),
    "aten.slice": sliced,
    "aten.roll": fixed_where_moved("dims"),
    "aten.unfold": fixed_where_moved("dimension"),
    "aten.diagonal": fixed_where_moved("dim1", "dim2"),
    **dict.fromkeys(_names("index", "_unsafe_index", "index_select", "gather"), indexed),
    **dict.fromkeys(_names("channel_shuffle", "native_channel_shuffle"), shuffled),
    "aten.constant_pad_nd": padded,
    "aten.as_strided_scatter": written,
}  # fmt: skip
