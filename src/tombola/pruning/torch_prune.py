"""Convert masks from and to `torch.nn.utils.prune`, which computes `weight` from `weight_orig` and `weight_mask`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import prune

from tombola.pruning.held_weight import shape_error
from tombola.pruning.hold import release
from tombola.pruning.mask import Mask
from tombola.utils.errors import InputError, unknown


def from_torch(network: nn.Module) -> Mask:
    """The mask of a network pruned with `torch.nn.utils.prune`; layers that are not pruned are full.

    Names and order are those of `prunable` for the network before pruning. Raises `InputError` if anything but the
    weight of a linear or convolutional layer is pruned.
    """
    return Mask({name: _kept(layers) for name, layers in _layers_by_weight(network).items()})


def to_torch(network: nn.Module, mask: Mask) -> None:
    """Prune `network`, in place, with `torch.nn.utils.prune.custom_from_mask`.

    Removes a hold. Weights already pruned by torch stay pruned. Raises `InputError`, and changes nothing, for unknown
    names or different shapes.
    """
    known = _layers_by_weight(network)
    for name, kept in mask.items():
        if name not in known:
            raise unknown("weight in the mask", name, known)
        if kept.shape != _parameter(known[name][0]).shape:
            raise shape_error(name, kept, _parameter(known[name][0]))
    release(network)
    for name, kept in mask.items():
        for layer in known[name]:
            prune.custom_from_mask(layer, "weight", kept.to(_parameter(layer)))  # type: ignore[no-untyped-call]


def absorb(network: nn.Module) -> Mask:
    """Undo the reparametrisation of `torch.nn.utils.prune`, in place; returns the mask, for `hold`.

    `weight_orig` becomes `weight`, the same `Parameter`, with its former name and order; pruned weights are zero.
    Raises `InputError` as `from_torch`, and then changes nothing.
    """
    mask = from_torch(network)
    for layers in _layers_by_weight(network).values():
        for layer in layers:
            if _is_pruned(layer):
                prune.remove(layer, "weight")  # type: ignore[no-untyped-call]
                for name in [name for name in layer._parameters if name != "weight"]:  # the weight is last now
                    layer._parameters[name] = layer._parameters.pop(name)
    return mask


def _layers_by_weight(network: nn.Module) -> dict[str, list[nn.Module]]:
    """By name of the prunable weight: the layers that share it."""
    names: dict[int, str] = {}
    layers: dict[str, list[nn.Module]] = {}
    for path, layer in network.named_modules():
        prunable = isinstance(layer, nn.Linear | _ConvNd)
        for pruned in (name.removesuffix("_orig") for name in layer._parameters if name.endswith("_orig")):
            if f"{pruned}_mask" in layer._buffers and not (prunable and pruned == "weight"):
                full = f"{path}.{pruned}".strip(".")
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
        kind = type(layer).__name__
        raise InputError(f"model: the weight of {kind} is computed from other parameters, so it cannot be pruned")
    return parameter


def _kept(layers: list[nn.Module]) -> Tensor:
    """The kept entries of the weight that these layers share: those that any of the layers keeps."""
    masks = [layer.weight_mask if _is_pruned(layer) else torch.ones_like(_parameter(layer)) for layer in layers]
    return torch.stack([torch.as_tensor(mask) != 0 for mask in masks]).any(0)
