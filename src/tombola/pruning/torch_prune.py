"""Convert masks from and to `torch.nn.utils.prune`, which computes `weight` from `weight_orig` and `weight_mask`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from tombola.pruning.held_weight import shape_error
from tombola.pruning.hold import release
from tombola.pruning.mask import Mask
from tombola.pruning.prunable_layers import weight_attributes
from tombola.utils.errors import InputError, unknown


def from_torch(network: nn.Module) -> Mask:
    """The mask of a network pruned with `torch.nn.utils.prune`; weights that are not pruned are full.

    Names and order are those of `prunable` for the network before pruning. Raises `InputError` if anything is pruned
    that `prunable` would not name.
    """
    return Mask({name: _kept(uses) for name, uses in _uses_by_weight(network).items()})


def to_torch(network: nn.Module, mask: Mask) -> None:
    """Prune `network`, in place, with `torch.nn.utils.prune.custom_from_mask`.

    Removes a hold. Weights already pruned by torch stay pruned. Raises `InputError`, and changes nothing, for unknown
    names or different shapes.
    """
    known = _uses_by_weight(network)
    for name, kept in mask.items():
        if name not in known:
            raise unknown("weight in the mask", name, known)
        if kept.shape != _parameter(*known[name][0]).shape:
            raise shape_error(name, kept, _parameter(*known[name][0]))
    release(network)
    for name, kept in mask.items():
        for layer, attribute in known[name]:
            kept = kept.to(_parameter(layer, attribute))
            prune.custom_from_mask(layer, attribute, kept)  # type: ignore[no-untyped-call]


def absorb(network: nn.Module) -> Mask:
    """Undo the reparametrisation of `torch.nn.utils.prune`, in place; returns the mask, for `hold`.

    `weight_orig` becomes `weight`, the same `Parameter`, with its former name and order; pruned weights are zero.
    Raises `InputError` as `from_torch`, and then changes nothing.
    """
    mask = from_torch(network)
    for layer, attribute in (use for uses in _uses_by_weight(network).values() for use in uses):
        if _is_pruned(layer, attribute):
            prune.remove(layer, attribute)  # type: ignore[no-untyped-call]
            first = getattr(layer, "_flat_weights_names", weight_attributes(layer))
            for name in [
                *first,
                *(name for name in layer._parameters if name not in first),
            ]:  # the weight is last now
                layer._parameters[name] = layer._parameters.pop(name)
    return mask


Use = tuple[nn.Module, str]
"""A layer and the name of its weight."""


def _uses_by_weight(network: nn.Module) -> dict[str, list[Use]]:
    """By name of the prunable weight: the layers that share it."""
    names: dict[int, str] = {}
    uses: dict[str, list[Use]] = {}
    for path, layer in network.named_modules():
        matrices = weight_attributes(layer)
        for pruned in (name.removesuffix("_orig") for name in layer._parameters if name.endswith("_orig")):
            if f"{pruned}_mask" in layer._buffers and pruned not in matrices:
                full = f"{path}.{pruned}".strip(".")
                raise InputError(f"model: {full} is pruned; only weights of linear and convolutional layers can be")
        for attribute in matrices:
            name = names.setdefault(id(_parameter(layer, attribute)), f"{path}.{attribute}".strip("."))
            uses.setdefault(name, []).append((layer, attribute))
    return uses


def _is_pruned(layer: nn.Module, attribute: str) -> bool:
    return f"{attribute}_orig" in layer._parameters


def _parameter(layer: nn.Module, attribute: str) -> Tensor:
    parameter = layer._parameters.get(f"{attribute}_orig", layer._parameters.get(attribute))
    if parameter is None:
        kind = type(layer).__name__
        raise InputError(
            f"model: the {attribute} of {kind} is computed from other parameters, so it cannot be pruned"
        )
    return parameter


def _kept(uses: list[Use]) -> Tensor:
    """The kept entries of the weight that these layers share: those that any of the layers keeps."""
    masks = [
        getattr(layer, f"{attribute}_mask")
        if _is_pruned(layer, attribute)
        else torch.ones_like(_parameter(layer, attribute))
        for layer, attribute in uses
    ]
    return torch.stack([torch.as_tensor(mask) != 0 for mask in masks]).any(0)
