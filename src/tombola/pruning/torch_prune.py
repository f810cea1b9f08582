"""Masks from and to `torch.nn.utils.prune`, which computes `weight` from `weight_orig` and `weight_mask`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import prune

from tombola.pruning.held_weight import misfit
from tombola.pruning.hold import release
from tombola.pruning.mask import Mask
from tombola.utils.errors import InputError, unknown


def from_torch(network: nn.Module) -> Mask:
    """Which weights are left of a network pruned with `torch.nn.utils.prune`; layers not pruned are full.

    Names and order are those that `prunable` gives for the plain network. Raises `InputError` where something else
    than the weight of a linear or convolutional layer is pruned: a mask is of those alone.
    """
    return Mask({name: _kept(layers) for name, layers in _layers(network).items()})


def to_torch(network: nn.Module, mask: Mask) -> None:
    """Prune `network`, in place, with `torch.nn.utils.prune.custom_from_mask`, for torch's own tools to see.

    A hold is removed: torch has a way of its own, a product in the forward pass. What torch has pruned already stays
    pruned. Raises `InputError`, and changes nothing, for names that the network does not have, or other shapes.
    """
    known = _layers(network)
    for name, kept in mask.items():
        if name not in known:
            raise unknown("weight in the mask", name, known)
        if kept.shape != _parameter(known[name][0]).shape:
            raise misfit(name, kept, _parameter(known[name][0]))
    release(network)
    for name, kept in mask.items():
        for layer in known[name]:
            prune.custom_from_mask(layer, "weight", kept.to(_parameter(layer)))  # type: ignore[no-untyped-call]


def absorb(network: nn.Module) -> Mask:
    """Make a network pruned with `torch.nn.utils.prune` plain again, in place; returns its mask, ready for `hold`.

    `weight_orig` becomes `weight` and is the same `Parameter`, so that optimizers go on with it; pruned weights are
    zero; names and their order are as before the pruning. Raises as `from_torch` does, and then changes nothing.
    """
    mask = from_torch(network)
    for layers in _layers(network).values():
        for layer in layers:
            if _is_pruned(layer):
                prune.remove(layer, "weight")  # type: ignore[no-untyped-call]
                for name in [name for name in layer._parameters if name != "weight"]:  # the weight is now the last
                    layer._parameters[name] = layer._parameters.pop(name)
    return mask


def _layers(network: nn.Module) -> dict[str, list[nn.Module]]:
    """The name of every weight that may be pruned, and the layers that share it."""
    names: dict[int, str] = {}
    layers: dict[str, list[nn.Module]] = {}
    for path, layer in network.named_modules():
        prunable = isinstance(layer, nn.Linear | _ConvNd)
        for own in (name.removesuffix("_orig") for name in layer._parameters if name.endswith("_orig")):
            if f"{own}_mask" in layer._buffers and not (prunable and own == "weight"):
                full = f"{path}.{own}".strip(".")
                raise InputError(f"model: {full} is pruned; only weights of linear and convolutional layers can be")
        if prunable:
            name = names.setdefault(id(_parameter(layer)), f"{path}.weight".strip("."))
            layers.setdefault(name, []).append(layer)
    return layers


def _is_pruned(layer: nn.Module) -> bool:
    return "weight_orig" in layer._parameters


def _parameter(layer: nn.Module) -> Tensor:
    parameter = layer._parameters.get("weight_orig", layer._parameters.get("weight"))
    if parameter is None:
        raise InputError(
            f"model: the weight of {layer} is computed from other parameters; only plain ones can be pruned"
        )
    return parameter


def _kept(layers: list[nn.Module]) -> Tensor:
    """What is left of the weight that these layers share: what any of them uses."""
    masks = [torch.ones_like(_parameter(layer)) if not _is_pruned(layer) else layer.weight_mask for layer in layers]
    return torch.stack([torch.as_tensor(mask) != 0 for mask in masks]).any(0)
