"""Attention heads that are described by the names of layers."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

import torch
from torch import Tensor

from tombola.pruning.layers import Kind, Layer, Shape
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.structures.unit_structure import UnitStructure
from tombola.pruning.structures.units import CompetingUnits, WeightUnits
from tombola.utils.errors import InputError, unknown

_MATRICES: tuple[Kind, ...] = ("linear", "Conv1D", "projection")


@dataclass(frozen=True)
class Heads:
    """Describes attention modules: the names of their layers, and the number of heads. A name may be a pattern
    (`encoder.*.query`) that matches one layer in each attention module, in the network's order.

    >>> Heads(12, query="*.self.query", key="*.self.key", value="*.self.value", output="*.attention.output.dense")
    ... # doctest: +ELLIPSIS
    Heads(...)
    """

    count: int
    """The number of heads of each module."""
    output: str
    """The output projection: [width, heads × d]."""
    query: str | None = None
    """The projection to queries: [heads × d, width]."""
    key: str | None = None
    """The projection to keys, of the same shape."""
    value: str | None = None
    """The projection to values, of the same shape."""
    qkv: str | None = None
    """Instead of these three, one projection: [3 × heads × d, width]."""

    def __call__(self, network: PrunableNetwork) -> UnitStructure:
        """A unit is a head: its rows of the projections to queries, keys and values, and its columns of the output
        projection (Michel et al. 2019, section 2). Raises `InputError` for names that match no layer, and for layers
        of other shapes, as in grouped-query attention.
        """
        given = [self.query, self.key, self.value] if self.qkv is None else [self.qkv]
        if None in given:
            raise InputError("structure: Heads needs query, key and value, or qkv")
        layers = [*network.layers.values()]
        inward = [_match_linear(layers, pattern) for pattern in given if pattern is not None]
        outward = _match_linear(layers, self.output)
        if any(len(layers) != len(outward) for layers in inward):
            names = ", ".join(map(str, given))
            raise InputError(f"structure: {names} and {self.output} match different numbers of layers")
        ids: dict[str, tuple[Tensor, ...]] = {}
        sets = []
        for index, (output, *projections) in enumerate(zip(outward, *inward, strict=True)):
            first = index * self.count
            inputs = tuple(layer.name for layer in projections)
            ids |= _head_ids(first, self.count, output, projections)
            if network.left_out.isdisjoint(inputs):
                sets.append(CompetingUnits(inputs[0], torch.arange(first, first + self.count), inputs))
        return UnitStructure(WeightUnits(ids, tuple(sets)), "heads")


def _head_ids(first: int, count: int, output: Layer, projections: list[Layer]) -> dict[str, tuple[Tensor, ...]]:
    """The ids of `count` heads from `first` on, by layer. `projections` are query, key and value, or one of all."""
    _check_rows(output, projections)
    heads = first + torch.arange(count)
    ids = {output.name: _along(0 if output.kind == "Conv1D" else 1, heads, output)}
    for projection in projections:
        rows = heads if len(projections) == 3 else heads.repeat(3)
        ids[projection.name] = _along(1 if projection.kind == "Conv1D" else 0, rows, projection)
    return {name: (tensor,) for name, tensor in ids.items()}


def _along(axis: int, units: Tensor, layer: Layer) -> Tensor:
    """Ids along an axis of a matrix, if each unit has equally many consecutive entries; they broadcast to it."""
    size = layer.shape[axis]
    if size % len(units):
        what = "rows" if (axis == 0) != (layer.kind == "Conv1D") else "columns"
        raise InputError(f"structure: {layer.label}, of {size} {what}, cannot have {len(units)} equal parts")
    return units.repeat_interleave(size // len(units)).unsqueeze(1 - axis)


def _check_rows(output: Layer, projections: list[Layer]) -> None:
    """Refuse attention whose heads share rows of a projection, such as grouped-query attention."""
    layer, width = output.label, _matrix_shape(output)[1]
    rows = [_matrix_shape(projection)[0] for projection in projections]
    if len(rows) == 3 and rows[0] != rows[1]:
        found = f"the keys of {layer} have {rows[1]} rows, but the queries {rows[0]}"
        raise InputError(f"structure: {found}; heads that share keys cannot be pruned")
    what, right = ("values", width) if len(rows) == 3 else ("qkv", 3 * width)
    if rows[-1] != right:
        raise InputError(
            f"structure: {what} should have {right} rows, as {layer} has {width} columns, not {rows[-1]}"
        )


def _matrix_shape(layer: Layer) -> Shape:
    """The shape as [out, in]."""
    return layer.shape[::-1] if layer.kind == "Conv1D" else layer.shape


def _match_linear(layers: list[Layer], pattern: str) -> list[Layer]:
    """The linear layers that the pattern matches."""
    named = {layer.label: layer for layer in layers if layer.kind in _MATRICES}
    matching = [pattern] if pattern in named else fnmatch.filter(named, pattern)
    if not matching:
        raise InputError(f"structure: {unknown('linear layer', pattern, named)}")
    return [named[name] for name in matching]
