"""Plain outputs: what a network returns, without classes of its own code, so that a file can be read without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

Constant = bool | int | float | complex | str


def plain(outputs: Any) -> Any:
    """The tensors and constants of `outputs` in plain containers.

    Mappings and dataclasses become dicts, without entries that are neither: None, and objects such as a cache of
    keys and values. Lists stay lists, other tuples become tuples; in these, such entries are None. `tensors` finds
    the same tensors in both.
    """
    if isinstance(outputs, Tensor | Constant):
        return outputs
    if isinstance(outputs, Mapping):
        entries = {name: plain(value) for name, value in outputs.items()}
        return {name: value for name, value in entries.items() if value is not None}
    if is_dataclass(outputs) and not isinstance(outputs, type):
        return plain({field.name: getattr(outputs, field.name) for field in fields(outputs)})
    if isinstance(outputs, list | tuple):
        return (list if isinstance(outputs, list) else tuple)(map(plain, outputs))
    leaves = pytree.tree_leaves(outputs)  # of a class that torch knows
    return None if any(leaf is outputs for leaf in leaves) else tuple(map(plain, leaves))


def with_plain_outputs(network: nn.Module) -> nn.Module:
    """`network`, which from now on returns its `plain` outputs."""
    network.register_forward_hook(lambda _module, _inputs, outputs: plain(outputs))
    return network
