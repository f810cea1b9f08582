"""Making a network smaller: of its tensors only what is kept stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from tombola.exports.resizing.norms import entries, is_rms, lacks_weight, rms_scale
from tombola.exports.resizing.sizes import GROUP_SIZES, Shape, convolution_groups
from tombola.exports.resizing.tensors import cannot, named_tensors, owner_of, replace_tensors
from tombola.utils.errors import InputError
from tombola.zoo.models.resnet import Subsample

Kept = Mapping[str, Sequence[Tensor | None]]
"""For each tensor that becomes smaller, by name, and for each of its axes: which indices stay, as a bool or int64
tensor; None if all do."""


@torch.no_grad()
def resize(network: nn.Module, kept: Kept) -> None:
    """Make modules of `network` smaller, in place: of its parameters and buffers only what is `kept` stays.

    Names are those of `named_parameters(remove_duplicate=False)` and `named_buffers`; also the `weight` that a norm
    without learned weights does not have (it gets a constant one, a buffer, so that its size is in the
    `state_dict`), and `channels` of a `Subsample` that is not the shortcut of a `ResidualBlock`. Tensors keep dtype,
    device, memory format and `requires_grad`, and stay tied. What is removed must not matter: entries that a layer
    norm or RMS norm no longer has must have been zero in its inputs.

    Raises `InputError`, before anything changes, for unknown names, indices that do not fit, and modules that cannot
    have such sizes, e.g. a part of a group or of a head.
    """
    tensors: dict[str, Tensor] = {}
    tied: dict[int, str] = {}
    for name, axes in kept.items():
        module, local = owner_of(network, name)
        old = _former(network, name)
        indices = _indices(name, axes, tuple(old.shape))
        first = tied.setdefault(id(old), name) if getattr(module, local, None) is old else name
        if not all(map(_equal, indices, _indices(first, kept[first], tuple(old.shape)))):
            raise InputError(f"{name}: other indices stay than of {first}, which is the same tensor")
        if all(index is None for index in indices):
            continue
        new = old.detach()
        for axis, index in enumerate(indices):
            new = new if index is None else new.index_select(axis, index.to(old.device))
        tensors[name] = new * rms_scale(old.numel(), new.numel()) if is_rms(module) and local == "weight" else new
        if indices[0] is not None and isinstance(module, _ConvNd) and local == "weight":
            tensors |= _group_sizes(name, module, indices[0], new)
        elif indices[0] is not None:
            _check_parts(name, module, local, indices[0])
    replace_tensors(network, tensors)


def _former(network: nn.Module, name: str) -> Tensor:
    """The tensor of a name; one for the weight that a norm lacks, and for the channels of a `Subsample`."""
    module, local = owner_of(network, name)
    if isinstance(module, Subsample) and local == "channels":
        return torch.empty(module.channels)
    if lacks_weight(module, local):
        like = next((tensor for _, tensor in named_tensors(network) if tensor.is_floating_point()), torch.empty(0))
        return torch.ones(entries(module), dtype=like.dtype, device=like.device)
    found = module._parameters.get(local, module._buffers.get(local))
    if found is None:
        raise InputError(f"{name}: the network has no parameter or buffer of this name")
    return found


def _indices(name: str, axes: Sequence[Tensor | None], shape: Shape) -> list[Tensor | None]:
    """The indices that stay of each axis, as int64; None for an axis of which all stay."""
    if len(axes) != len(shape):
        raise InputError(f"{name}: {len(axes)} axes are given, but it has {len(shape)}")
    found: list[Tensor | None] = []
    for axis, (index, size) in enumerate(zip(axes, shape, strict=True)):
        if index is not None and index.dtype == torch.bool and index.shape == (size,):
            index = index.nonzero().flatten()
        if index is not None and (index.dtype != torch.int64 or index.dim() != 1):
            raise InputError(
                f"{name}, axis {axis}: what stays should be {size} bools or a list of int64 indices, not "
                f"{index.dtype} {tuple(index.shape)}"
            )
        if index is not None and (not len(index) or index.min() < 0 or index.max() >= size):
            raise InputError(f"{name}, axis {axis}: at least one index should stay, all of them from 0 to {size - 1}")
        if index is not None and len(torch.unique(index)) < len(index):
            raise InputError(f"{name}, axis {axis}: each index can stay only once")
        found.append(None if index is not None and torch.equal(index.cpu(), torch.arange(size)) else index)
    return found


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and torch.equal(one.cpu(), other.cpu()))


def _group_sizes(name: str, module: _ConvNd, rows: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """The `GROUP_SIZES` of a convolution of which these rows of the weight stay, if it needs them, by name."""
    assert isinstance(module.weight, Tensor)
    left = torch.bincount(rows * module.groups // len(module.weight))
    left = torch.unique(left[left > 0])
    if len(left) > 1:
        raise InputError(f"{name}: each group that stays should keep as many channels as the others")
    groups = len(rows) // int(left)
    if groups == convolution_groups(module, *weight.shape[:2]) and GROUP_SIZES not in module._buffers:
        return {}
    return {f"{name.removesuffix('weight')}{GROUP_SIZES}": left.repeat(groups).to(weight.device)}


def _check_parts(name: str, module: nn.Module, local: str, rows: Tensor) -> None:
    """Raise `InputError` if only a part of a group of a group norm stays, or of an attention head: of its queries,
    keys and values."""
    size = 1
    if isinstance(module, nn.GroupNorm):
        size = module.num_channels // module.num_groups
    elif isinstance(module, nn.MultiheadAttention) and "_proj_" in local:
        size = module.head_dim
    left = torch.bincount(rows // size)
    thirds = left[None]
    if isinstance(module, nn.MultiheadAttention) and local.startswith("in_proj_"):
        thirds = torch.bincount(rows, minlength=3 * module.num_heads * size).view(3, -1)
    if bool((left % size).any()) or bool((thirds != thirds[0]).any()):
        raise InputError(f"{name}: {cannot(module)}")
