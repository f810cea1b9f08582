"""Products: linear layers, convolutions, embeddings, and products of two tensors that both depend on the inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tombola.graph.follower import Follower, LayerCall, Rule, Source, Value, varies_somewhere
from tombola.graph.recording import TensorIndex
from tombola.graph.rules.elementwise import combined
from tombola.graph.ties import IntArray, along, none, others, varies, vector


def convolved(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    x, weight = follower.of(arguments["input"]), follower.of(arguments["weight"])
    (shape,) = follower.output_shapes()
    groups, transposed = arguments["groups"], arguments["transposed"]
    inputs = follower.settle(x, 1)
    if not _is_plain(follower, weight):
        return [_unknown_weight(follower, [x, weight], shape)]
    (source,) = weight.sources
    out, into = (1, 0) if transposed else (0, 1)
    rows, columns = follower.label(source.name, out), follower.label(source.name, into)
    outputs = rows.repeat(groups) if transposed else rows
    if transposed or groups == 1:
        follower.ties.tie(columns, inputs)
        follower.fix(columns[inputs < 0], "reads an input of fixed size")
    if groups > 1:
        outputs = _grouped(follower, inputs, rows, columns, groups, transposed)
    spreads = transposed or any(arguments["padding"])
    name, axes, reads = source.name, (out, into), (arguments["input"].index, 1)
    follower.produced.append(("convolution", name, outputs.long().numpy()))
    counts = np.arange(len(outputs)), np.arange(len(inputs) // groups)
    units = inputs.long().numpy(), outputs.long().numpy()
    follower.products.append(LayerCall(name, axes, *counts, *units, follower.position, 1, reads, groups, spreads))
    value = Value(along(outputs, 1, shape))
    bias = arguments["bias"]
    if bias is not None:
        value = combined(follower, [value, broadcast(follower.of(bias), 1, shape)], shape)
    return [value]


def _grouped(
    follower: Follower, inputs: Tensor, rows: Tensor, columns: Tensor, groups: int, transposed: bool
) -> Tensor:
    """Tie the channels of a grouped convolution; returns its outputs. Either whole groups can be removed, or the same
    channels of each group: whichever leaves more of a choice. `rows` and `columns` are the units of the parameter's
    axes for outputs and inputs; one of these is that of a single group."""
    ties, of_group = follower.ties, inputs.view(groups, -1)
    if groups >= of_group.shape[1]:
        ties.merge(of_group, [1])
        fixed = (of_group < 0).any(1)  # of groups that read a part of the input
        follower.fix(of_group[fixed], "reads them with an input of fixed size")
        if not transposed:
            follower.fix(rows.view(groups, -1)[fixed], "reads an input of fixed size")
        if transposed:
            return of_group[:, :1].repeat_interleave(len(rows), 1).flatten()
        ties.tie(of_group[:, :1], ties.merge(rows.view(groups, -1), [1]))
        return rows
    ties.merge(of_group, [0])
    follower.fix(of_group[:, (of_group < 0).any(0)], "reads them with an input of fixed size")
    if transposed:
        return rows.repeat(groups)
    ties.tie(columns, of_group[0])
    ties.merge(rows.view(groups, -1), [0])
    return rows


def multiplied(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    """`addmm`, `mm`, `bmm` and the like: [..., m, k] times [..., k, n], and a bias."""
    names = [
        name for name in ("mat1", "mat2", "batch1", "batch2", "input", "weight", "vec", "other") if name in arguments
    ]
    first = "self" if len(names) < 2 else names[-2]
    a, b = follower.of(arguments[first]), follower.of(arguments[names[-1]])
    (shape,) = follower.output_shapes()
    if "weight" in arguments:
        b = b.map(lambda each: each.transpose(-1, -2))  # [out, in]
    if len(b.units.shape) == 1:  # a vector
        b = b.map(lambda each: each.unsqueeze(-1))
    full = (*_batches(a, b), a.units.shape[-2], b.units.shape[-1])
    value = _matrix_product(follower, a, b, (arguments[first], arguments[names[-1]]), full)
    value = replace(value, units=value.units.reshape(shape))
    bias = arguments.get("self" if first != "self" else "bias")
    if bias is not None:
        value = combined(follower, [value, follower.of(bias).map(lambda each: each.expand(shape))], shape)
    return [value]


def _matrix_product(
    follower: Follower, a: Value, b: Value, refs: tuple[TensorIndex, TensorIndex], shape: tuple[int, ...]
) -> Value:
    if a.is_weight and b.is_weight and not _is_of_layer(follower, b):
        return Value(none(shape), computed=True)
    if a.computed or b.computed:
        return _unknown_weight(follower, [a, b], shape)
    if b.is_weight:
        return _linear(follower, refs[0], a, -1, b, -2, -1, shape)
    if a.is_weight:
        return _linear(follower, refs[1], b, -2, a, -1, -2, shape)
    for each in (a, b):
        if each.sources:
            follower.settle(each, -1)
    return Value(product_of_activations(follower, a.units, b.units, shape))


def _linear(
    follower: Follower,
    read: TensorIndex,
    x: Value,
    axis: int,
    weight: Value,
    into: int,
    out: int,
    shape: tuple[int, ...],
) -> Value:
    """`x`, read along `axis`, times a parameter with inputs and outputs along the axes `into` and `out`; outputs are
    at the same axis of the result as in the parameter."""
    inputs = follower.settle(x, axis)
    columns = along(inputs, into, weight.units.shape)
    follower.attach(weight.sources, columns)
    units = None
    for source in weight.sources:
        row_axis, column_axis = _axes_along(source, out, into)
        if row_axis is None:
            follower.fix(inputs, f"multiplies them by rearranged weights of {source.name}")
            continue
        rows = vector(source.coordinates[row_axis], out)
        found = follower.units_of(source.name, row_axis, rows)
        follower.produced.append(("linear", source.name, found.long().numpy()))
        if units is None:
            units = found
        follower.ties.tie(units, found)
        if len(weight.sources) == 1 and column_axis is not None:
            columns = vector(source.coordinates[column_axis], into)
            read_by = follower.units_of(source.name, column_axis, columns)
            follower.fix(read_by[inputs < 0], "reads an input of fixed size")
            axes = (row_axis, column_axis)
            places, read_and_made = (_numbers(rows), _numbers(columns)), (_numbers(inputs), _numbers(found))
            reads = (read.index, axis)
            follower.products.append(
                LayerCall(source.name, axes, *places, *read_and_made, follower.position, out, reads)
            )
    if len(weight.sources) > 1:  # which weights are zero is not known
        follower.fix(inputs, "multiplies them by several weights")
    return Value(none(shape) if units is None else along(units, out, shape))


def product_of_activations(follower: Follower, a: Tensor, b: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The units of a product of matrices that both depend on the inputs, as in attention. What is summed over is
    tied; where units are left along other axes, such as that of heads, the result has them."""
    left, right = follower.ties.merge(a, [a.dim() - 1]), follower.ties.merge(b, [b.dim() - 2])
    units = none(shape)
    for before, after, axis in ((a, left, -1), (b, right, -2)):
        if not varies_somewhere(after):
            if varies(before, axis) or ((after >= 0).any() and not varies_somewhere(before)):
                follower.fix(after, "sums over them")
            continue
        units = torch.maximum(units, after.expand(shape))
        if any(varies(after, batch) for batch in range(after.dim() - 2)):
            follower.attention.append(np.unique(after[after >= 0].long().numpy()))
    for after in (left, right):
        if varies_somewhere(after):
            follower.ties.tie(units, after)
    return units


def embedded(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    weight = follower.of(arguments["weight"])
    shapes = follower.output_shapes()
    if not _is_plain(follower, weight):
        return [_unknown_weight(follower, [weight], shape) for shape in shapes]
    name = weight.sources[0].name
    units = follower.label(name, 1)
    follower.produced.append(("embedding", name, units.long().numpy()))
    return [Value(along(units, -1, shape) if shape and shape[-1] == len(units) else none(shape)) for shape in shapes]


def _is_plain(follower: Follower, weight: Value) -> bool:
    """Whether it is a whole parameter as it is, up to a function of each element."""
    if len(weight.sources) != 1 or not weight.is_weight or weight.computed:
        return False
    (source,) = weight.sources
    shape = follower.parameters[source.name].shape
    return tuple(weight.units.shape) == tuple(shape) and all(
        not any(varies(each, other) for other in others(each, axis))
        and bool((vector(each, axis) == torch.arange(shape[axis])).all())
        for axis, each in enumerate(source.coordinates)
    )


def _unknown_weight(follower: Follower, values: list[Value], shape: tuple[int, ...]) -> Value:
    """The product with weights that are computed of parameters: nothing that it reads can be removed."""
    for value in values:
        follower.fix(value.units, "multiplies them by computed weights")
    return Value(none(shape))


def _axes_along(source: Source, out: int, into: int) -> tuple[int | None, int | None]:
    """The axes of a parameter whose coordinates vary along the axes `out` and `into` of a matrix, each along that one
    alone; of a matrix with one row or column, an axis of size 1."""
    coordinates, shape = source.coordinates, source.coordinates[0].shape
    found: list[int | None] = []
    for axis, other in ((out, into), (into, out)):
        fits = [at for at, each in enumerate(coordinates) if varies(each, axis) and not varies(each, other)]
        found.append(fits[0] if fits else None)
    constant = [at for at, each in enumerate(coordinates) if not (varies(each, out) or varies(each, into))]
    for place, axis in enumerate((out, into)):
        if found[place] is None and shape[axis] == 1 and constant:
            found[place] = constant.pop(0)
    return found[0], found[1]


def _is_of_layer(follower: Follower, weight: Value) -> bool:
    """Whether a product is that of a layer of torch, whatever it reads: a parameter may be an input, such as learned
    queries."""
    owners = {source.name.rpartition(".")[0] for source in weight.sources}
    layer = isinstance(follower.module, nn.Linear | nn.MultiheadAttention)
    return layer and not weight.computed and owners == {follower.operation.module}


def _numbers(units: Tensor) -> IntArray:
    return units.long().numpy()


def _batches(a: Value, b: Value) -> tuple[int, ...]:
    return tuple(map(max, a.units.shape[:-2], b.units.shape[:-2]))


def broadcast(value: Value, axis: int, shape: tuple[int, ...]) -> Value:
    """A vector as a tensor of this shape, along one axis."""
    return value.map(lambda each: along(each, axis, shape))


RULES: dict[str, Rule] = {
    "aten.convolution": convolved,
    "aten._convolution": convolved,
    **dict.fromkeys(
        [f"aten.{n}" for n in ("addmm", "mm", "bmm", "baddbmm", "linear", "mv", "addmv", "_addmm_activation")],
        multiplied,
    ),
    "aten.embedding": embedded,
    "aten._embedding_bag_forward_only": embedded,
    "aten._embedding_bag": embedded,
}
