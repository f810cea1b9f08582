"""A sparse network's weights, packed: the mask in bits, and of masked layers only the weights that are left."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tombola.pruning.mask import Mask, State, pack_bits, unpack_bits
from tombola.utils.errors import DamagedFile


def pack(state: Mapping[str, Tensor], mask: Mask) -> dict[str, Tensor]:
    """Tensors that hold `state` and `mask`, small where the mask is sparse.

    For each masked parameter `mask/NAME` (uint8, eight weights a byte), `shape/NAME` (int64) and `kept/NAME`
    (the weights left, in row-major order); `whole/NAME` for everything else.
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
    """The state, with zeros where weights are pruned, and the mask that `pack` was given.

    Raises `DamagedFile` where the parts do not fit together.
    """
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
                state[name] = spread(tensor, kept[name])
            except (KeyError, ValueError, RuntimeError, TypeError) as error:
                raise DamagedFile(f"the weights and the mask of {name} do not fit together: {error}") from error
    return state, Mask(kept)


def spread(values: Tensor, kept: Tensor) -> Tensor:
    """The weights of a layer from those that are left, in row-major order; zero where they are pruned.

    Raises `ValueError` where there are not as many as `kept` has entries that are True.
    """
    if values.shape != (int(kept.sum()),):
        raise ValueError(f"{tuple(values.shape)} values for {int(kept.sum())} weights")
    return torch.zeros(kept.shape, dtype=values.dtype).masked_scatter(kept, values)
