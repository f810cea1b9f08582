"""Nested Python values, such as the state of an optimizer, as named tensors and JSON values, and back."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tombola.utils.errors import InputError

_MAPPINGS: dict[str, Any] = {"dict": dict, "Counter": Counter, "OrderedDict": OrderedDict}
_STORED_AS = {1: torch.uint8, 2: torch.int16}  # for floats that NumPy does not have, by their width in bytes
_FLOATS = (torch.float16, torch.float32, torch.float64)


def flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Describe `value` by JSON values. CPU copies of its tensors are added to `tensors`, with names that begin with
    `path`.

    Containers may be lists, tuples and dictionaries, with JSON values as keys. Raises `InputError` for any other
    type: it could not be read from a file without executing code.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        tensors[path] = _storable_copy(value)
        return {"tensor": path, "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, list | tuple):
        items = [flatten(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, Mapping):
        kind = type(value).__name__ if type(value).__name__ in _MAPPINGS else "dict"
        return {kind: [[flatten(k, path, tensors), flatten(v, f"{path}/{k}", tensors)] for k, v in value.items()]}
    raise InputError(
        f"{path}: a {type(value).__name__} cannot be saved in a checkpoint, only numbers, text and tensors"
    )


def unflatten(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value that `flatten` was given. Its tensors are copies, safe to train."""
    if isinstance(value, list):
        return [unflatten(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]].clone().view(getattr(torch, value["dtype"]))
    ((kind, items),) = value.items()
    if kind == "tuple":
        return tuple(unflatten(items, tensors))
    return _MAPPINGS[kind]({unflatten(k, tensors): unflatten(v, tensors) for k, v in items})


def cpu_copy(value: Any) -> Any:
    """The same value with all tensors copied to the CPU."""
    tensors: dict[str, Tensor] = {}
    return unflatten(flatten(value, "state", tensors), tensors)


def _storable_copy(tensor: Tensor) -> Tensor:
    copy = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    if tensor.is_floating_point() and tensor.dtype not in _FLOATS:
        return copy.view(_STORED_AS[tensor.dtype.itemsize])
    return copy
