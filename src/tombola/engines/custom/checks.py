"""Checks of the network that the user's training function leaves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tombola.pruning.held_weight import held_weights, revived_error
from tombola.pruning.mask import Mask, State
from tombola.utils.errors import InputError


def check_returned(network: nn.Module) -> None:
    """Raises `InputError` if pruned weights are not zero when `train` returns a figure, and were not set to zero
    before its forward passes either: the figure would be of other weights."""
    for layer in network.modules():
        for weight in held_weights(layer):
            if not weight.used and (revived := weight.revived):
                raise InputError(
                    f"train: {weight.path}: {revived:,} pruned weights were not zero in its forward passes, which "
                    "are compiled or called with other tensors, so its figure is not the ticket's: give find_ticket "
                    "an `evaluate`, or train with a torch.optim.Optimizer"
                )


def check_trained(network: nn.Module, start: State, final: State, mask: Mask) -> None:
    """Raises `InputError` if the network can no longer be pruned by this mask, its pruned weights are not zero, or
    nothing has changed."""
    held = {weight.path: weight.kept for layer in network.modules() for weight in held_weights(layer)}
    for name, kept in mask.items():
        _check_weight(name, kept, final.get(name), held.get(name))
    if all(name in final and torch.equal(tensor, final[name]) for name, tensor in start.items()):
        raise InputError("train: did not change the network; is it training a different one?")


def _check_weight(name: str, kept: Tensor, trained: Tensor | None, held: Tensor | None) -> None:
    if trained is None or trained.shape != kept.shape:
        change = f"removed {name} from the network" if trained is None else f"changed the shape of {name}"
        raise InputError(f"train: {change}: the model should have its final layers from the beginning")
    if held is None or not torch.equal(held, kept):
        raise InputError(
            f"train: {name} is not held at zero where it is pruned: train replaced its layer or its hold; the model "
            "should have its final layers from the beginning"
        )
    if revived := int(trained[~kept].count_nonzero()):
        raise revived_error(f"train: {name}", revived)
