"""The hooks of a held network: pruned weights are zero in every forward pass, and looked at before a `state_dict`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tombola.pruning.held_weight import HeldWeight, held_weights

_KEY: Any = "tombola.hold"
"""Not a key from torch: it counts keys per process, so an unpickled one could be used twice."""


class ZeroBeforeUse:
    """A hook of a module before its forward passes. Weights of its submodules are included, because a module may use
    them without calling the submodule.

    It is copied and pickled with the module, and does nothing while a graph is traced.
    """

    def __init__(self, weights: list[HeldWeight] | None = None) -> None:
        self._weights = weights

    def __call__(self, module: nn.Module, *_: object) -> None:
        if _traced():
            return
        if self._weights is None:  # this is a copy
            self._weights = _weights_in(module)
        for weight in self._weights:
            weight.before_use()

    def __reduce__(self) -> tuple[object, ...]:
        return ZeroBeforeUse, ()


class CheckBeforeSaving:
    """A hook of a module before its `state_dict`. Weights of submodules are not included: these have their own."""

    def __call__(self, module: nn.Module, *_: object) -> None:
        for weight in [] if _traced() else held_weights(module):
            weight.check()


def update_hooks(network: nn.Module) -> None:
    """Give these hooks to all modules of `network` that have held weights, and take them from the others."""
    for module in network.modules():
        weights = _weights_in(module)
        _set_hook(module._forward_pre_hooks, ZeroBeforeUse(weights) if weights else None)
        _set_hook(module._state_dict_pre_hooks, CheckBeforeSaving() if weights else None)


def _set_hook(hooks: dict[Any, Any], hook: object) -> None:
    if hook is None:
        hooks.pop(_KEY, None)
    else:
        hooks[_KEY] = hook


def _traced() -> bool:
    return torch.compiler.is_compiling() or bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def _weights_in(module: nn.Module) -> list[HeldWeight]:
    return [weight for layer in module.modules() for weight in held_weights(layer) if weight.active]
