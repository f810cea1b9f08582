"""Differences between configs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def differences(tables: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The dotted keys at which nested tables differ, with the value of each table; None where the key is missing.

    >>> differences([{"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}])
    {'b.c': [2, 3]}
    """
    flat = [_flatten(table) for table in tables]
    keys = dict.fromkeys(key for values in flat for key in values)
    found = {key: [values.get(key) for values in flat] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
