"""Operations on single elements, with broadcasting: what is at one place has one unit in all operands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from tombola.graph.follower import Follower, Value, no_units, pending
from tombola.graph.recording import Operation, Shape, TensorRef
from tombola.graph.ties import none, varies, without_repeats

ELEMENTWISE = {
    "aten.hardswish", "aten.hardswish_", "aten._prelu_kernel", "aten._to_copy", "aten.tril", "aten.triu",
    "aten.log_sigmoid_forward", "aten.native_dropout", "aten.rrelu_with_noise", "aten._fused_dropout",
}  # fmt: skip
"""Operators that act on single elements, beside those that torch tags as such."""


def is_elementwise(operation: Operation) -> bool:
    return torch.Tag.pointwise in operation.function.tags or operation.name in ELEMENTWISE


def elementwise(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    refs = [leaf for leaf in pytree.tree_leaves(list(arguments.values())) if isinstance(leaf, TensorRef)]
    shapes = follower.output_shapes()
    return [combined(follower, [follower.of(ref) for ref in refs], shapes[0]), *no_units(follower)[1:]]


def combined(follower: Follower, operands: Sequence[Value], shape: Shape) -> Value:
    """The value of an elementwise function of several tensors, of this shape."""
    if all(value.units.shape == shape and not value.external for value in operands) and len(operands) == 1:
        return operands[0]
    units = none(shape)
    for value in operands:
        ours, theirs = without_repeats(units, value.units.expand(shape))
        units = torch.maximum(ours, theirs).expand(shape)
    for value in operands:
        follower.ties.tie(units, value.units)
        if value.external:
            _fix_sizes(follower, value, units)
    sources = [source for value in operands for source in value.sources]
    follower.attach(sources, units)
    return Value(
        units,
        pending(sources, units),
        all(value.external for value in operands),
        any(value.computed for value in operands),
    )


def _fix_sizes(follower: Follower, external: Value, units: torch.Tensor) -> None:
    """The sizes of a constant cannot change, nor those of what it is combined with."""
    first = units.dim() - external.units.dim()
    if any(size > 1 and varies(units, first + axis) for axis, size in enumerate(external.units.shape)):
        follower.fix(units, "combines them with a constant of fixed size")


def replaced(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    """`copy_`: the tensor becomes another one."""
    return [combined(follower, [follower.of(arguments["src"])], follower.output_shapes()[0])]


def nothing(follower: Follower, arguments: dict[str, Any]) -> list[Value]:  # noqa: ARG001
    """Tensors that do not depend on others, such as zeros, or whose units do not matter."""
    return no_units(follower)


RULES = {
    "aten.copy_": replaced,
    "aten.copy": replaced,
    **dict.fromkeys(
        [
            "aten.fill_", "aten.zero_", "aten.zeros_like", "aten.ones_like", "aten.empty_like", "aten.full_like",
            "aten.rand_like", "aten.randn_like", "aten.randint_like", "aten.new_zeros", "aten.new_ones",
            "aten.new_empty", "aten.new_full", "aten.bernoulli", "aten.bernoulli_", "aten.normal_", "aten.uniform_",
        ],
        nothing,
    ),
}  # fmt: skip
