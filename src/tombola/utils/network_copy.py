"""Copies of a user's network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.prune import BasePruningMethod
from torch.overrides import TorchFunctionMode

from tombola.utils.errors import InputError
from tombola.utils.text import first_line

Module = TypeVar("Module", bound=nn.Module)


def copy_network(network: Module) -> Module:
    """A deep copy of `network`. Tensors that it keeps of a forward pass, such as feature maps, are detached.

    Raises `InputError` if weights have no values yet, if `torch.nn.utils.prune` computes them, and for attributes
    that cannot be copied, such as locks and open files.
    """
    _check_values(network)
    try:
        copied: Module = _deepcopy(network)
    except Exception as error:  # attributes may raise anything
        name, cause = _uncopyable(network) or (type(network).__name__, error)
        raise InputError(f"model: {name} cannot be copied: {first_line(cause)}") from error
    return copied


def _deepcopy(value: Any) -> Any:
    with _DetachedCopies():
        return copy.deepcopy(value)


class _DetachedCopies(TorchFunctionMode):
    """Within it, deep copies of tensors that are part of a graph, which torch refuses, are detached."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return func(*args, **(kwargs or {}))


def _check_values(network: nn.Module) -> None:
    """Raise `InputError` for weights that a copy cannot have."""
    for path, module in network.named_modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, BasePruningMethod):
                name = f"{path}.{hook._tensor_name}".removeprefix(".")
                raise InputError(
                    f"model: {name} is pruned by torch.nn.utils.prune; first call "
                    "tombola.pruning.torch_prune.absorb(model), which takes its masks over"
                )
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if is_lazy(tensor):
            raise InputError(f"model: {name} has no shape yet; call the model on a batch of inputs first")
        if tensor.is_meta:
            raise InputError(f"model: {name} is on the meta device and has no values; load the weights first")


def _uncopyable(network: nn.Module) -> tuple[str, Exception] | None:
    """The first attribute that cannot be copied, by its path, and why."""
    for path, module in network.named_modules():
        for name, value in vars(module).items():
            if name != "_modules":
                try:
                    _deepcopy(value)
                except Exception as error:  # noqa: BLE001 - the same
                    return f"{path}.{name}".removeprefix("."), error
    return None
