"""Coupling: the units of a network that must be kept or removed together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from tombola.graph.follower import Follower, LayerCall, Norm, Value, no_units
from tombola.graph.recording import Graph, Operation, record
from tombola.graph.rules import RULES
from tombola.graph.rules.elementwise import elementwise, is_elementwise
from tombola.graph.ties import IntArray, Ties, distinct, varies
from tombola.utils.model_inputs import Inputs, rows
from tombola.utils.network_copy import copy_network

Kind = Literal["channels", "neurons", "heads", "width"]
RESIZABLE = (
    nn.Linear, nn.Bilinear, _ConvNd, _BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.PReLU,
    nn.Embedding, nn.EmbeddingBag, nn.MultiheadAttention, nn.ParameterList, nn.ParameterDict,
)  # fmt: skip
"""Modules of torch that can have other sizes."""


_UNEXPECTED = (LookupError, TypeError, ValueError, RuntimeError, AssertionError, AttributeError)
"""What a rule raises for arguments that it does not expect."""


@dataclass(frozen=True)
class UnitSet:
    """Units that are alternatives to each other: the channels of a tensor, or the heads of an attention layer."""

    name: str
    """The first parameter whose outputs they are."""
    kind: Kind
    """`channels`: outputs of convolutions. `neurons`: outputs of linear layers alone. `heads`: of attention.
    `width`: what a layer norm or an embedding has, such as the residual stream of a transformer."""
    units: tuple[int, ...]
    """Those that can be removed."""
    producers: tuple[str, ...]
    """All parameters whose outputs they are."""
    whole: str = ""
    """Why none can be removed; empty if some can."""


@dataclass(frozen=True)
class Coupling:
    """Which entries of a network's parameters belong to which unit."""

    sets: tuple[UnitSet, ...]
    parameters: Mapping[str, tuple[IntArray | None, ...]]
    """By the name of a parameter or buffer that has units, for each of its axes: the unit of each index; None if the
    axis has none."""
    fixed: Mapping[int, str]
    """The units that cannot be removed, and why."""
    output_layers: frozenset[str]
    """Parameters whose outputs the network returns, or that are added to what it returns."""
    graph: Graph
    tensors: Mapping[int, Tensor]
    """The unit of each element of a tensor in the graph, -1 where it has none; not of parameters and of what is made
    of them alone."""
    products: tuple[LayerCall, ...]
    norms: tuple[Norm, ...]
    count: int
    """Units are smaller than this."""


def coupling(network: nn.Module, example: Inputs) -> Coupling:
    """The coupled units of `network`, found by running a copy of it on the first two of the examples.

    The operands of an addition have the same units; so have batch norm, depthwise convolutions and whatever acts on
    single elements; products create units. See `tombola.graph.rules`. Raises what the network raises.
    """
    copy = copy_network(network).eval()
    return couple(copy, record(copy, rows(example, slice(2))))


def couple(network: nn.Module, graph: Graph) -> Coupling:
    """The same of a graph that was recorded."""
    modules = dict(network.named_modules())
    tensors = dict((*network.named_parameters(), *network.named_buffers()))
    follower = Follower(graph, modules, tensors)
    follower.start()
    for position, operation in enumerate(graph.operations):
        follower.position = position
        values = _values(follower, operation)
        for index, value in zip((i for i in operation.outputs if i is not None), values, strict=True):
            given = any(follower.values[each].given for each in operation.inputs)
            follower.values[index] = replace(value, given=given, computed=value.computed and not given)
    returned = [follower.values[index] for index in graph.outputs]
    for value in returned:
        follower.ties.fix(value.units, "the network returns them")
    _make_rectangular(follower.ties, follower.splits)
    follower.attach_unclear()
    _fix_unknown_modules(follower)
    _fix_inputs(follower)
    _fix_normalised(follower)
    _make_rectangular(follower.ties, follower.splits)
    return _result(follower, returned)


def _values(follower: Follower, operation: Operation) -> list[Value]:
    """What an operation returns. Whatever the rules do not cover cannot be removed."""
    arguments = bind(operation)
    inputs = [follower.values[index] for index in operation.inputs]
    rule = RULES.get(operation.name)
    if rule is None and is_elementwise(operation):
        rule = elementwise
    if rule is not None:
        try:
            return list(rule(follower, arguments))
        except _UNEXPECTED:
            pass
    for value in inputs:
        follower.fix(value.units, "is not understood")
    return no_units(follower)


def bind(operation: Operation) -> dict[str, Any]:
    """The arguments by their names in the operator's schema, with defaults."""
    schema = operation.function._schema.arguments
    named = {argument.name: argument.default_value for argument in schema}
    named |= {argument.name: value for argument, value in zip(schema, operation.arguments, strict=False)}
    return named | operation.options


def _make_rectangular(ties: Ties, splits: Sequence[Tensor]) -> None:
    """Where an axis was divided into several, tie units until those along one of these axes decide."""
    changed = True
    while changed:
        changed = False
        for units in splits:
            found = ties.classes_of(units)
            varying = [axis for axis in range(found.dim()) if varies(found, axis)]
            if len(varying) > 1:
                ties.merge(units, varying[:1])
                changed = True


def _fix_unknown_modules(follower: Follower) -> None:
    """The sizes of other modules of torch, such as LSTMs, cannot be changed."""
    for (name, axis), _ in follower.labels.items():
        module = follower.modules[name.rpartition(".")[0]]
        if type(module).__module__.startswith("torch.nn.") and not isinstance(module, RESIZABLE):
            follower.ties.fix(follower.label(name, axis), f"{type(module).__name__} has a fixed size")


def _fix_normalised(follower: Follower) -> None:
    """Units can only be left out of a layer norm if they are zero there."""
    classes = follower.ties.classes
    normalised = {int(classes[unit]) for norm in follower.norms for unit in norm.inputs[norm.inputs >= 0]}
    for units, label in follower.shifted:
        found = follower.ties.classes_of(units)
        lost = torch.from_numpy(np.isin(found.long().numpy(), [*normalised]))
        follower.ties.fix(torch.where(lost, units, -1.0), f"{label} is not zero for zero, and they are normalised")


def _fix_inputs(follower: Follower) -> None:
    """Entries of parameters that no unit belongs to, such as the weights for an input of the network."""
    classes = follower.ties.classes
    seen = np.unique(classes[np.concatenate([distinct(value.units) for value in follower.values.values()])])
    made = np.unique(classes[np.concatenate([units for _, _, units in follower.produced] or [seen[:0]])])
    for units in follower.padding:
        alone = torch.from_numpy(~np.isin(follower.ties.classes_of(units).long().numpy(), made))
        follower.ties.fix(units[alone], "padding has a fixed size")
    unseen = torch.from_numpy(np.setdiff1d(classes, seen)).double()
    follower.ties.fix(unseen, "an input has a fixed size")


def _result(follower: Follower, returned: Sequence[Value]) -> Coupling:
    ties, classes = follower.ties, follower.ties.classes
    parameters: dict[str, list[IntArray | None]] = {}
    for (name, axis), first in follower.labels.items():
        shape = follower.parameters[name].shape
        parameters.setdefault(name, [None] * len(shape))[axis] = classes[first : first + shape[axis]]
    seen = {int(classes[unit]) for value in returned for unit in distinct(value.units)}
    return Coupling(
        tuple(_sets(follower)),
        {name: tuple(axes) for name, axes in parameters.items()},
        ties.fixed,
        frozenset(name for _, name, units in follower.produced if seen.intersection(classes[units].tolist())),
        follower.graph,
        {i: ties.classes_of(value.units) for i, value in follower.values.items() if not value.sources},
        tuple(
            replace(each, inputs=_class_of(classes, each.inputs), outputs=classes[each.outputs])
            for each in follower.products
        ),
        tuple(replace(each, inputs=_class_of(classes, each.inputs)) for each in follower.norms),
        ties.count,
    )


def _class_of(classes: IntArray, units: IntArray) -> IntArray:
    return np.where(units < 0, units, classes[units]) if len(classes) else units


def _sets(follower: Follower) -> Iterator[UnitSet]:
    """The sets, in the order in which they are computed."""
    classes, fixed = follower.ties.classes, follower.ties.fixed
    together = Ties()
    together.count = len(classes)
    produced = [(kind, name, torch.from_numpy(classes[units]).double()) for kind, name, units in follower.produced]
    for _, _, units in produced:
        together.merge(units, [0])
    members: dict[int, list[int]] = {}
    for at, (_, _, units) in enumerate(produced):
        members.setdefault(int(together.classes[int(units[0])]), []).append(at)
    heads = {int(classes[unit]) for units in follower.attention for unit in units}
    normed = {int(classes[unit]) for norm in follower.norms for unit in norm.inputs[norm.inputs >= 0]}
    for places in members.values():
        layers = {produced[at][0] for at in places}
        units = np.unique(np.concatenate([produced[at][2].long().numpy() for at in places])).tolist()
        kind: Kind = "neurons"
        if heads.intersection(units):
            kind = "heads"
        elif normed.intersection(units) or "embedding" in layers:
            kind = "width"
        elif "convolution" in layers:
            kind = "channels"
        removable = tuple(unit for unit in units if unit not in fixed)
        reasons = [fixed[unit] for unit in units if unit in fixed]
        names = tuple(dict.fromkeys(produced[at][1] for at in places))
        yield UnitSet(names[0], kind, removable, names, "" if removable else reasons[0])
