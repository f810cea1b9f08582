"""Compact storage of a sparse network: the mask as bits, and only the kept weights of masked layers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tombola.pruning.mask import Mask, State, pack_bits, unpack_bits
from tombola.utils.errors import DamagedFile


def pack(state: Mapping[str, Tensor], mask: Mask) -> dict[str, Tensor]:
    """`state` and `mask` as tensors, small where the mask is sparse.

    For each masked parameter `mask/NAME` (uint8, eight weights a byte), `shape/NAME` (int64) and `kept/NAME`
    (the kept weights, in row-major order); `whole/NAME` for everything else.
    """
    packed = {}
    for name, tensor in state.items():
        value = tensor.detach().cpu()
        if name in mask:
            packed[f"mask/{name}"] = pack_bits(mask[name])
            packed[f"shape/{name}"] = torch.tensor(value.shape, dtype=torch.int64)
            packed[f"kept/{name}"] = value[mask[name]]
        else:
            packed[f"whole/{name}"] = value.clone()
    return packed


def unpack(packed: Mapping[str, Tensor]) -> tuple[State, Mask]:
    """The state, with zeros for pruned weights, and the mask: the inverse of `pack`. Raises `DamagedFile` if entries
    are missing or do not match."""
    state: State = {}
    kept = {}
    for entry, tensor in packed.items():
        kind, _, name = entry.partition("/")
        if kind == "whole":
            state[name] = tensor
        elif kind == "kept":
            try:
                shape = tuple(packed[f"shape/{name}"].tolist())
                kept[name] = unpack_bits(packed[f"mask/{name}"], shape)
                state[name] = scatter_kept(tensor, kept[name])
            except (KeyError, ValueError, RuntimeError, TypeError) as error:
                raise DamagedFile(f"the weights and the mask of {name} do not match: {error}") from error
    return state, Mask(kept)


def scatter_kept(values: Tensor, kept: Tensor) -> Tensor:
    """The weight tensor of a layer from its kept weights, in row-major order; pruned weights are zero. Raises
    `ValueError` unless there is one value for each True of the mask `kept`."""
    if values.shape != (int(kept.sum()),):
        raise ValueError(f"{tuple(values.shape)} values for {int(kept.sum())} weights")
    return torch.zeros(kept.shape, dtype=values.dtype).masked_scatter(kept, values)


def strip_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries named `prefix/...`, without the prefix."""
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
