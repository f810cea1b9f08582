"""Operations on single elements, with broadcasting: what is at one place has one unit in all operands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from tombola.graph.follower import Follower, Rule, Value, no_units, pending
from tombola.graph.recording import Operation, Shape, TensorIndex
from tombola.graph.ties import none, without_repeats

ELEMENTWISE = {
    "aten.hardswish", "aten.hardswish_", "aten._prelu_kernel", "aten._to_copy", "aten.tril", "aten.triu",
    "aten.log_sigmoid_forward", "aten.native_dropout", "aten.rrelu_with_noise", "aten._fused_dropout",
}  # fmt: skip
"""Operators that act on single elements, beside those that torch tags as such."""


def is_elementwise(operation: Operation) -> bool:
    return torch.Tag.pointwise in operation.function.tags or operation.name in ELEMENTWISE


def elementwise(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    refs = [leaf for leaf in pytree.tree_leaves(list(arguments.values())) if isinstance(leaf, TensorIndex)]
    shapes = follower.output_shapes()
    if len(refs) == 1 and _moves_zero(follower.operation):
        follower.shifted.append((follower.of(refs[0]).units, follower.operation.label))
    return [combined(follower, [follower.of(ref) for ref in refs], shapes[0]), *no_units(follower)[1:]]


def _moves_zero(operation: Operation) -> bool:
    """Whether a function of one tensor has another value than zero for zero, as sigmoid has."""
    zeros = pytree.tree_map_only(TensorIndex, lambda _: torch.zeros(1), (operation.arguments, operation.options))
    return bool((pytree.tree_leaves(operation.function(*zeros[0], **zeros[1]))[0] != 0).any())


def combined(follower: Follower, operands: Sequence[Value], shape: Shape) -> Value:
    """The value of an elementwise function of several tensors, of this shape."""
    if len(operands) == 1 and operands[0].units.shape == shape:
        return operands[0]
    units = none(shape)
    for value in operands:
        ours, theirs = without_repeats(units, value.units.expand(shape))
        units = torch.maximum(ours, theirs).expand(shape)
    for value in operands:
        follower.ties.tie(units, value.units)
        follower.combine(units, value)
    sources = [source for value in operands for source in value.sources]
    follower.attach(sources, units)
    return Value(
        units,
        pending(sources, units),
        any(value.computed for value in operands),
    )


def replaced(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    """`copy_`: the tensor becomes another one."""
    return [combined(follower, [follower.of(arguments["src"])], follower.output_shapes()[0])]


def nothing(follower: Follower, arguments: dict[str, Any]) -> list[Value]:  # noqa: ARG001
    """Tensors that do not depend on others, such as zeros, or whose units do not matter."""
    return no_units(follower)


def alike(follower: Follower, arguments: dict[str, Any]) -> list[Value]:
    """A tensor of other values, as large as a given one."""
    return [Value(follower.of(arguments["self"]).units)]


RULES: dict[str, Rule] = {
    "aten.copy_": replaced,
    "aten.copy": replaced,
    **dict.fromkeys(
        [
            f"aten.{name}"
            for name in (
                "fill_", "zero_", "bernoulli_", "normal_", "uniform_", "bernoulli", "zeros_like", "ones_like",
                "empty_like", "full_like", "rand_like", "randn_like", "randint_like",
            )
        ],
        alike,
    ),
    **dict.fromkeys([f"aten.{name}" for name in ("new_zeros", "new_ones", "new_empty", "new_full")], nothing),
}  # fmt: skip
