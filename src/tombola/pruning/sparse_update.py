"""Sparse updates: fine-tune some weights of a network, leave all others as they are, and keep only the difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from tombola.pruning.held_weight import shape_error
from tombola.pruning.mask import Mask
from tombola.utils.errors import InputError, unknown

_INDICES, _VALUES = "indices:", "values:"
"""In a file: before the name of the parameter; entries in row-major order, and their differences."""


@contextmanager
def train_only(network: nn.Module, mask: Mask) -> Iterator[None]:
    """Within this context only the weights that `mask` keeps are trained; all others, and parameters that it does not
    name, keep their present values (LoTA, Panda et al. 2024, arXiv 2406.16797: the second fine-tuning).

    Gradients of the others are zero as soon as a backward pass has accumulated them, so clipping by the norm sees
    only what is trained. After each step of any `torch.optim.Optimizer` they get their values again, because weight
    decay or momentum moves them too. Buffers, such as statistics of batch norm, are not parameters: they change.
    Unlike `tombola.hold`, which keeps pruned weights at zero, nothing is pruned, and nothing stays on the network.

    The mask is usually that of the largest changes of a first fine-tuning (LoTA): score `distance` of the fine-tuned
    network, with the base as `start`. See docs/how-to/language-models.md.

    Raises `InputError`, and changes nothing, for names and shapes that the network does not have.
    """
    parameters = dict(network.named_parameters())
    for name, kept in mask.items():
        if name not in parameters:
            raise unknown("parameter in the mask", name, parameters)
        if parameters[name].shape != kept.shape:
            raise shape_error(name, kept, parameters[name])
    fixed = {name: _fixed(parameter, mask.get(name)) for name, parameter in parameters.items()}
    base = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    trained = {id(parameter) for parameter in parameters.values()}

    def zero_gradient(name: str, parameter: Tensor) -> None:
        if parameter.grad is not None:
            parameter.grad.masked_fill_(fixed[name], 0)

    def restore(optimizer: Optimizer, *_: Any) -> None:
        if any(id(parameter) in trained for group in optimizer.param_groups for parameter in group["params"]):
            _restore(parameters, base, fixed)

    hooks = [register_optimizer_step_post_hook(restore)]
    for name, parameter in parameters.items():
        if parameter.requires_grad:

            def hook(parameter: Tensor, name: str = name) -> None:
                zero_gradient(name, parameter)

            hooks.append(parameter.register_post_accumulate_grad_hook(hook))  # type: ignore[no-untyped-call]
            zero_gradient(name, parameter)
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()
        _restore(parameters, base, fixed)


def save_update(path: str | Path, base: Mapping[str, Tensor], network: nn.Module) -> int:
    """Write to a safetensors file by how much the parameters of `network` differ from the `base`, a `state_dict` of
    it; returns the number of entries that do. For each parameter that differs there are `indices:NAME`, int64, of
    the entries in row-major order, and `values:NAME`. Raises `InputError` for another network's `state_dict`."""
    from safetensors.torch import save_file

    tensors, count = dict[str, Tensor](), 0
    for name, parameter in network.named_parameters():
        if name not in base or base[name].shape != parameter.shape:
            raise InputError(f"base: should be a state_dict of this network, with {name} {tuple(parameter.shape)}")
        before, after = base[name].detach().cpu().flatten(), parameter.detach().cpu().flatten()
        changed = (before != after).nonzero().squeeze(1)
        if len(changed):
            tensors |= {_INDICES + name: changed, _VALUES + name: (after - before)[changed]}
            count += len(changed)
    save_file(tensors, path)
    return count


@torch.no_grad()
def add_update(network: nn.Module, path: str | Path) -> None:
    """Add the differences of a file of `save_update` to the network, which has the values of its base. The sums are
    the fine-tuned weights, to within rounding. Raises `InputError`, and changes nothing, for a file that does not
    fit the network."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"path: {path} cannot be read as safetensors: {error}") from error
    parameters, updates = dict(network.named_parameters()), dict[str, tuple[Tensor, Tensor]]()
    for name in (key.removeprefix(_INDICES) for key in tensors if key.startswith(_INDICES)):
        indices, values = tensors[_INDICES + name], tensors.get(_VALUES + name)
        if name not in parameters:
            raise unknown(f"parameter in {path}", name, parameters)
        outside = len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < parameters[name].numel()
        if values is None or values.shape != indices.shape or outside:
            raise InputError(f"path: {path} has no valid update of {name}, of {parameters[name].numel():,} entries")
        updates[name] = indices, values
    if not updates:
        raise InputError(f"path: {path} has no update; it should be a file of save_update")
    for name, (indices, values) in updates.items():
        parameter = parameters[name]
        change = torch.zeros(parameter.numel(), dtype=values.dtype).index_put_((indices,), values)
        parameter.add_(change.view(parameter.shape).to(parameter))


def _fixed(parameter: Tensor, trained: Tensor | None) -> Tensor:
    """Which entries keep their values, on the parameter's device."""
    every = torch.ones(parameter.shape, dtype=torch.bool) if trained is None else ~trained
    return every.to(parameter.device)


@torch.no_grad()
def _restore(parameters: Mapping[str, Tensor], base: Mapping[str, Tensor], fixed: Mapping[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(torch.where(fixed[name], base[name], parameter))
