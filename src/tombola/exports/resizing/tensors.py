"""Replacing tensors of a network by smaller ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tombola.exports.resizing.sizes import Shape, Update, update
from tombola.utils.errors import InputError
from tombola.zoo.models.resnet import ResidualBlock, Subsample


def replace_tensors(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Replace tensors by smaller ones, by name, and set the sizes of modules accordingly: all or none.

    Layers without a bias may get one. Raises `InputError` for a module that cannot have such tensors.
    """
    updates, refused = plan_updates(network, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    if refused:
        path = next(iter(refused))
        raise InputError(f"{path or type(network).__name__}: {cannot(network.get_submodule(path))}")
    set_tensors(network, tensors)
    apply_updates(updates)


def plan_updates(
    network: nn.Module, changed: Mapping[str, Shape]
) -> tuple[list[tuple[nn.Module, Update]], dict[str, nn.Module]]:
    """What has to change in which modules when tensors get other shapes; and the modules that cannot have them."""
    own = dict(named_tensors(network))
    shared = {id(own[name]): shape for name, shape in changed.items() if name in own}  # tied ones change together
    before: dict[str, Shape] = {name: tuple(tensor.shape) for name, tensor in own.items()}
    after = {name: shared.get(id(tensor), before[name]) for name, tensor in own.items()} | dict(changed)
    updates, refused = [], {}
    for path, module in network.named_modules():
        prefix = f"{path}." if path else ""
        old, new = (
            {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
            for shapes in (before, after)
        )
        found = update(module, old, new)
        if found is None:
            refused[path] = module
        else:
            updates.append((module, found))
        if isinstance(module, Subsample) and "channels" in new:
            updates.append((module, Update({"channels": new["channels"][0]})))
        if isinstance(module, ResidualBlock) and isinstance(module.shortcut, Subsample) and "conv2.weight" in new:
            updates.append((module.shortcut, Update({"channels": new["conv2.weight"][0]})))
    return updates, refused


def apply_updates(updates: Sequence[tuple[nn.Module, Update]]) -> None:
    for module, found in updates:
        if found.becomes is not None:
            module.__class__ = found.becomes
        for name, value in found.attributes.items():
            setattr(module, name, value(module) if callable(value) else value)


def set_tensors(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Replace tensors of a network by name; those that are tied stay tied."""
    own = list(named_tensors(network))
    named = dict(own)
    for name, tensor in tensors.items():
        module, local = owner_of(network, name)
        old = named.get(name)
        if old is None:
            if not isinstance(module, Subsample):
                _add(module, local, tensor)
            continue
        new: Tensor = _in_layout_of(old, tensor)
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, old.requires_grad)
        for other, theirs in own:
            if theirs is old:
                owner, local = owner_of(network, other)
                entries: dict[str, Any] = owner._parameters if local in owner._parameters else owner._buffers
                entries[local] = new


def _add(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Add a tensor that a module did not have: a bias is like the weight; others are constants."""
    weight = module._parameters.get("weight")
    if name == "bias" and weight is not None:
        new = tensor.detach().to(weight.device, weight.dtype, copy=True).contiguous()
        module.bias = nn.Parameter(new, weight.requires_grad)
        return
    module._parameters.pop(name, None)
    module.register_buffer(name, tensor)


def _in_layout_of(old: Tensor, tensor: Tensor) -> Tensor:
    """A copy of `tensor` with the dtype and device of `old`, and its axes in the same order in memory."""
    strides = old.stride()
    order = sorted(range(old.dim()), key=lambda axis: (-strides[axis], axis))
    back = [order.index(axis) for axis in range(old.dim())]
    new = tensor.detach().to(old.device, old.dtype).permute(order)
    return new.clone(memory_format=torch.contiguous_format).permute(back)


def named_tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters(remove_duplicate=False)
    yield from network.named_buffers(remove_duplicate=False)


def owner_of(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that has a tensor, and its name there. Raises `InputError` if there is no such module."""
    path, _, local = name.rpartition(".")
    try:
        return network.get_submodule(path), local
    except AttributeError:
        raise InputError(f"{name}: the network has no parameter or buffer of this name") from None


def cannot(module: nn.Module) -> str:
    return f"a {type(module).__name__} cannot get these sizes"
