"""Calls of layers, as hooks see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor


def layer_input(args: Iterable[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The input in a call of a layer: the first tensor among its arguments, positional or by keyword, of which torch
    names it `input`; None without any tensor."""
    values = (*args, kwargs.get("input"), *kwargs.values())
    return next((value for value in values if isinstance(value, Tensor)), None)
