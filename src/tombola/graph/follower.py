"""Follower: which units each element of each tensor of a graph has, operation by operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from tombola.graph.recording import Graph, Operation, Shape, TensorIndex
from tombola.graph.ties import NONE, IntArray, Ties, along, distinct, none, others, varies, without_repeats


@dataclass(frozen=True)
class Source:
    """Elements of a parameter or buffer, by their coordinates."""

    name: str
    coordinates: tuple[Tensor, ...]
    """For each axis of the parameter, the coordinate of each element of a tensor; `NONE` where an element comes from
    elsewhere. Mostly expanded from a vector."""


@dataclass(frozen=True)
class Value:
    """What is known of a tensor."""

    units: Tensor
    """The unit of each element, float64, or `NONE`."""
    sources: tuple[Source, ...] = ()
    """The parameters and buffers that elements without a unit are made of, up to functions of single elements."""
    computed: bool = False
    """Whether it is computed of parameters alone in a way that no longer shows which element is which."""
    given: bool = False
    """Whether it depends on the network's inputs."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Value:
        """With the elements moved by a function."""
        sources = tuple(Source(each.name, tuple(map(function, each.coordinates))) for each in self.sources)
        return replace(self, units=function(self.units), sources=sources)

    @property
    def is_weight(self) -> bool:
        """Whether it is made of parameters alone."""
        return bool(self.sources) and not self.given and not bool((without_repeats(self.units)[0] >= 0).any())


@dataclass(frozen=True)
class LayerCall:
    """A linear layer or convolution: outputs are sums of inputs, multiplied by the weights of a parameter."""

    weight: str
    axes: tuple[int, int]
    """The axes of the parameter for outputs and inputs; of a grouped convolution, for inputs of one group."""
    rows: IntArray
    """For each output, its coordinate along the first axis."""
    columns: IntArray
    """For each input (of a group), its coordinate along the second."""
    inputs: IntArray
    """The unit of each input."""
    outputs: IntArray
    """The unit of each output."""
    operation: int
    """Its index in the graph."""
    axis: int
    """The axis of its result for outputs."""
    reads: tuple[int, int]
    """The tensor that it reads, and the axis of that for inputs."""
    groups: int = 1
    spreads: bool = False
    """Whether constant inputs do not give constant outputs: it is padded, or transposed."""


@dataclass(frozen=True)
class Norm:
    """A layer norm or RMS norm: an output depends on all inputs along the last axis."""

    inputs: IntArray
    """The unit of each input."""
    operation: int


@dataclass
class Follower:
    """Follows a graph. Rules (see `tombola.graph.rules`) call its methods."""

    graph: Graph
    modules: dict[str, nn.Module]
    """By name, as in `named_modules`."""
    parameters: dict[str, Tensor]
    """Parameters and buffers by name."""
    ties: Ties = field(default_factory=Ties)
    values: dict[int, Value] = field(default_factory=dict)
    """By tensor."""
    labels: dict[tuple[str, int], int] = field(default_factory=dict)
    """The first unit of an axis of a parameter; the others follow."""
    produced: list[tuple[str, str, IntArray]] = field(default_factory=list)
    """(the kind of layer, the parameter, the units of its outputs)."""
    products: list[LayerCall] = field(default_factory=list)
    norms: list[Norm] = field(default_factory=list)
    attention: list[IntArray] = field(default_factory=list)
    """Units of attention heads."""
    splits: list[Tensor] = field(default_factory=list)
    """Units along several axes into which one was split."""
    shifted: list[tuple[Tensor, str]] = field(default_factory=list)
    """Units to which a function is applied that is not zero for zero, and the operation."""
    padding: list[Tensor] = field(default_factory=list)
    """Units of what padding adds to others."""
    _unclear: list[tuple[Source, Tensor, str]] = field(default_factory=list)
    _combined: list[tuple[Tensor, Tensor, list[int], str]] = field(default_factory=list)
    position: int = 0
    """The index of the present operation."""

    def start(self) -> None:
        """Set the values of what is not computed."""
        for index in self.graph.inputs:
            self.values[index] = Value(sized(self.graph.shapes[index]), given=True)
        for index in self.graph.external:
            self.values[index] = Value(sized(self.graph.shapes[index]))
        for index, name in self.graph.names.items():
            shape = self.graph.shapes[index]
            axes = [torch.arange(size, dtype=torch.float64) for size in shape]
            coordinates = tuple(along(axis, number, shape) for number, axis in enumerate(axes))
            self.values[index] = Value(none(shape), (Source(name, coordinates),) if shape else ())

    @property
    def operation(self) -> Operation:
        return self.graph.operations[self.position]

    @property
    def module(self) -> nn.Module:
        """The module that performs the present operation."""
        return self.modules[self.operation.module]

    def of(self, ref: Any) -> Value:
        """The value of a tensor among the arguments; one without units for None."""
        return self.values[ref.index] if isinstance(ref, TensorIndex) else Value(none(()))

    def shape(self, ref: TensorIndex) -> Shape:
        return self.graph.shapes[ref.index]

    def output_shapes(self) -> list[Shape]:
        """Of the tensors that the present operation returns."""
        return [self.graph.shapes[index] for index in self.operation.outputs if index is not None]

    def fix(self, units: Tensor, why: str) -> None:
        """These units cannot be removed: the present operation is the reason, if its result is used."""
        if self.position in self.graph.needed:
            self.ties.fix(units, f"{self.operation.label} {why}")

    def label(self, name: str, axis: int) -> Tensor:
        """The units of a parameter's axis."""
        size = self.parameters[name].shape[axis]
        if (name, axis) not in self.labels:
            self.labels[name, axis] = int(self.ties.new(size)[0]) if size else self.ties.count
        first = self.labels[name, axis]
        return torch.arange(first, first + size, dtype=torch.float64)

    def units_of(self, name: str, axis: int, coordinates: Tensor) -> Tensor:
        """The units at these coordinates of a parameter's axis; `NONE` at `NONE`."""
        labels = self.label(name, axis)
        return torch.where(coordinates < 0, coordinates, labels[coordinates.clamp(min=0).long()])

    def attach(self, sources: Sequence[Source], units: Tensor) -> None:
        """Tie the elements of parameters to the units at the same places."""
        for source in sources:
            if not self._attached(source, units, units):
                self._unclear.append((source, units, self.operation.label))

    def _attached(self, source: Source, units: Tensor, known: Tensor) -> bool:
        """Tie them if an axis of the parameter decides which unit an element belongs to, or none does, because units
        differ along other axes only, as with biases of attention scores. `known` tells the units apart."""
        axes = [axis for axis in range(known.dim()) if varies(known, axis)]
        varying = [[axis for axis in axes if varies(each.expand(known.shape), axis)] for each in source.coordinates]
        if not any(varying):
            return not axes or known is not units  # what is tied later may leave fewer axes
        deciding = [at for at, each in enumerate(varying) if each == axes]
        for at in deciding[:1]:
            coordinates, given = without_repeats(source.coordinates[at], units)
            place = (given >= 0) & (coordinates >= 0)
            self.ties.tie(self.units_of(source.name, at, coordinates[place]), given[place])
        return bool(deciding)

    def combine(self, units: Tensor, other: Value) -> None:
        """Note that units are combined with the elements of another tensor at the same places. Where that has none,
        its size does not follow theirs."""
        places = other.units.expand(units.shape)
        for source in other.sources:
            places = torch.maximum(places, source.coordinates[0].expand(units.shape))
        ours, missing = without_repeats(units, places)
        if bool(((ours >= 0) & (missing < 0)).any()) and self.position in self.graph.needed:
            first = units.dim() - other.units.dim()
            strides = zip(other.units.shape, other.units.stride(), strict=True)
            axes = [first + axis for axis, (size, stride) in enumerate(strides) if size > 1 and stride]
            self._combined.append((units, places, axes, self.operation.label))

    def attach_unclear(self) -> None:
        """Once all operations are known, and what is tied by them: attach what could not be attached before, and fix
        what is combined with something of fixed size."""
        for units, places, axes, label in self._combined:
            known = self.ties.classes_of(units)
            if any(varies(known, axis) for axis in axes):
                self.ties.fix(torch.where(places < 0, units, float(NONE)), f"{label} combines them with a fixed size")
        for source, units, label in self._unclear:
            if not self._attached(source, units, self.ties.classes_of(units)):
                self.ties.fix(units, f"{label} has a part of {source.name} for each of several axes")
        self._unclear.clear()

    def settle(self, value: Value, axis: int) -> Tensor:
        """The units of a tensor that is read along one axis: each is the same at all places of the other axes, and
        parameters that are part of it belong to them. A vector."""
        merged = self.ties.merge(value.units, others(value.units, axis))
        if value.sources:
            held = torch.stack([self._present(source, axis, merged) for source in value.sources]).any(0)
            missing = (merged < 0) & held
            if missing.any():
                merged = merged.clone()
                merged[missing] = self.ties.new(int(missing.sum()))
            self.attach(value.sources, merged.expand(value.units.shape))
        return merged.flatten()

    def _present(self, source: Source, axis: int, like: Tensor) -> Tensor:
        present = source.coordinates[0] >= 0
        axes = others(present, axis)
        return (present.any(axes, keepdim=True) if axes else present).expand(like.shape)

    def split(self, units: Tensor) -> None:
        """Note that units vary along several axes, so that what is kept of one of these has to be the same for all
        places of the others."""
        if sum(varies(units, axis) for axis in range(units.dim())) > 1:
            (compact,) = without_repeats(units)
            self.splits.append(compact.contiguous())


Rule = Callable[[Follower, dict[str, Any]], list[Value]]
"""What the present operation returns, of its arguments by their names in the operator's schema."""


def varies_somewhere(units: Tensor) -> bool:
    """Whether there is more than one unit in a tensor."""
    return len(distinct(units)) > 1


def no_units(follower: Follower) -> list[Value]:
    """Tensors without units, as the present operation returns them."""
    return [Value(sized(shape)) for shape in follower.output_shapes()]


def sized(shape: Sequence[int]) -> Tensor:
    """No units, in a tensor that is not expanded: its size does not follow that of others."""
    return torch.full(tuple(shape), float(NONE), dtype=torch.float64)


def pending(sources: Sequence[Source], units: Tensor) -> tuple[Source, ...]:
    """The sources of the elements that have no units yet."""
    left = []
    for source in sources:
        first, taken = torch.broadcast_tensors(source.coordinates[0], units)  # type: ignore[no-untyped-call]
        if ((first >= 0) & (taken < 0)).any():
            some_taken = bool(((first >= 0) & (taken >= 0)).any())
            coordinates = tuple(
                torch.where(taken < 0, each.expand(taken.shape), float(NONE))
                if some_taken
                else each.expand(taken.shape)
                for each in source.coordinates
            )
            left.append(Source(source.name, coordinates))
    return tuple(left)
