"""Repair: sizes that stand in the code or the attributes of a network whose layers became smaller."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tombola.graph.constants import BoolArray
from tombola.graph.coupling import Coupling
from tombola.graph.recording import Operation, Recorder, Shape
from tombola.graph.ties import distinct, others
from tombola.utils.model_inputs import Inputs, clone
from tombola.utils.network_copy import copy_network

_COPIES = ("aten.clone", "aten.alias", "aten.detach", "aten.contiguous")
"""Operators that are called or not, depending on how a tensor lies in memory."""


@dataclass(frozen=True)
class Mismatch:
    """An operation that the smaller network does not perform as expected."""

    position: int
    """Its place among the operations that are compared."""
    operation: Operation
    sizes: tuple[tuple[int, int], ...]
    """The sizes of axes of its inputs and outputs that should have changed: (before, after)."""
    removed: tuple[int, ...]
    """The units of its inputs and outputs that were removed; if there are none, of the nearest operation's."""

    @property
    def label(self) -> str:
        return self.operation.label


def first_mismatch(
    network: nn.Module, smaller: nn.Module, example: Inputs, units: Coupling, present: BoolArray
) -> Mismatch | None:
    """Run a copy of `smaller`, and compare its operations with those that were recorded of `network`: the first that
    gives a tensor of another shape than expected, or that it fails at; None if there is none."""
    recorder = Recorder(copy_network(smaller), clone(example))
    failed = False
    try:
        recorder.run()
    except Exception:  # noqa: BLE001 - a user's module may raise anything with smaller layers
        failed = True
    replaced = _replaced(network, smaller)
    expected = [*_compared(units.graph.operations, replaced)]
    needed = {index for place in units.graph.needed for index in units.graph.operations[place].inputs}
    needed.update(units.graph.outputs)
    found = [*_compared(recorder.graph.operations, replaced)]
    for position, operation in enumerate(expected):
        if position >= len(found):
            return _mismatch(position, expected, units, present) if failed else None
        other = found[position]
        wanted = [
            expected_shape(units, index, present) if index in needed else None
            for index in _tensors(operation.outputs)
        ]
        got = [recorder.graph.shapes[index] for index in _tensors(other.outputs)]
        agree = len(wanted) == len(got) and all(w in (None, g) for w, g in zip(wanted, got, strict=True))
        if _name(other) != _name(operation) or not agree:
            return _mismatch(position, expected, units, present)
    return _mismatch(len(expected) - 1, expected, units, present) if failed and expected else None


def expected_shape(units: Coupling, tensor: int, present: BoolArray) -> Shape | None:
    """The shape of a tensor once only the units that are `present` are left; None if it is not known."""
    of_elements = units.tensors.get(tensor)
    if of_elements is None:
        return None
    shape = units.graph.shapes[tensor]
    if not len(distinct(of_elements)):
        return shape
    has_unit = of_elements >= 0
    kept = torch.from_numpy(present)[of_elements.clamp(min=0).long()] & has_unit
    return tuple(int((_any(kept, axis) | ~_any(has_unit, axis)).sum()) for axis in range(len(shape)))


def _any(kept: Tensor, axis: int) -> Tensor:
    axes = others(kept, axis)
    return kept.amax(axes) if axes else kept


def repair(smaller: nn.Module, mismatch: Mismatch) -> Callable[[], None] | None:
    """Change the integers among the attributes of the module at fault that are a size before into the size after.
    Returns a function that changes them back; None if there are none."""
    module = smaller.get_submodule(mismatch.operation.module)
    sizes = dict(reversed(mismatch.sizes))
    changes = {}
    for name, value in vars(module).items():
        several = type(value) in (tuple, list, torch.Size)
        changed = type(value)(map(_changed, value, [sizes] * len(value))) if several else _changed(value, sizes)
        if (several or type(value) is int) and changed != value and not name.startswith("_"):
            changes[name] = changed
    former = {name: vars(module)[name] for name in changes}
    if not changes:
        return None
    vars(module).update(changes)
    return lambda: vars(module).update(former)


def _changed(value: Any, sizes: Mapping[int, int]) -> Any:
    return sizes.get(value, value) if type(value) is int else value


def _mismatch(position: int, operations: list[Operation], units: Coupling, present: BoolArray) -> Mismatch:
    operation = operations[position]
    sizes = [
        (before, after)
        for index in (*operation.inputs, *_tensors(operation.outputs))
        for before, after in zip(units.graph.shapes[index], expected_shape(units, index, present) or (), strict=False)
        if before != after
    ]
    nearest = (operation, *reversed(operations[:position]), *operations[position + 1 :])
    removed = (_removed(each, units, present) for each in nearest)
    return Mismatch(position, operation, tuple(dict.fromkeys(sizes)), next((each for each in removed if each), ()))


def _removed(operation: Operation, units: Coupling, present: BoolArray) -> tuple[int, ...]:
    """The units of an operation's inputs and outputs that are not present: those that only its outputs have, if there
    are any, such as what is padded."""
    read, made = (
        {int(unit) for index in indices if index in units.tensors for unit in distinct(units.tensors[index])}
        for indices in (operation.inputs, _tensors(operation.outputs))
    )
    missing = {unit for unit in read | made if not present[unit]}
    return tuple(sorted(missing - read or missing))


def _replaced(network: nn.Module, smaller: nn.Module) -> tuple[str, ...]:
    """Modules of another class in the smaller network, whose operations are not the same."""
    before = dict(network.named_modules())
    return tuple(name for name, module in smaller.named_modules() if type(module) is not type(before.get(name)))


def _compared(operations: list[Operation], replaced: tuple[str, ...]) -> Iterator[Operation]:
    for operation in operations:
        if operation.name not in _COPIES and not any(
            operation.module == name or operation.module.startswith(f"{name}.") for name in replaced
        ):
            yield operation


def _name(operation: Operation) -> str:
    return operation.name.replace("_unsafe_view", "view")


def _tensors(outputs: tuple[int | None, ...]) -> list[int]:
    return [index for index in outputs if index is not None]
