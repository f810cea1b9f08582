"""Calls of modules with any arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor


def call(network: Callable[..., Any], example: Any) -> Any:
    """The outputs of `network` for `example`: a tuple of its positional arguments, a dict of its keyword arguments,
    or its only argument. Its tensors are copied, as the network may change them in place."""
    example = _copied(example)
    if isinstance(example, tuple):
        return network(*example)
    return network(**example) if isinstance(example, dict) else network(example)


def _copied(value: Any) -> Any:
    """The same with copies of the tensors in it, without gradients."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {name: _copied(part) for name, part in value.items()}
    return type(value)(map(_copied, value)) if type(value) in (list, tuple) else value


def layer_input(args: Iterable[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The input in a call of a layer: the first tensor among its arguments, positional or by keyword, of which torch
    names it `input`; None without any tensor."""
    values = (*args, kwargs.get("input"), *kwargs.values())
    return next((value for value in values if isinstance(value, Tensor)), None)
