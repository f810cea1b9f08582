"""Checks of the network that the user's training leaves: its parameters are those of the beginning, and held."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tombola.pruning.held_weight import held_weights, revived_error
from tombola.pruning.mask import Mask, State
from tombola.pruning.network_state import named_tensors
from tombola.utils.errors import InputError

Shapes = Mapping[str, torch.Size]
"""The shape of each parameter, by name."""

_ADVICE = "the model should have its final layers from the beginning"


def check_returned(network: nn.Module) -> None:
    """Raises `InputError` if pruned weights were not zero where the figure that `train` returns may have used them
    outside of the network's own forward passes: the figure would be of other weights."""
    for layer in network.modules():
        for weight in held_weights(layer):
            if revived := weight.revived_unseen:
                raise InputError(
                    f"train: {weight.path}: {revived:,} pruned weights were not zero, and may have been used so: its "
                    "forward passes are compiled, or use other tensors, or are not calls of the network; give "
                    "find_ticket an `evaluate`, or train with a torch.optim.Optimizer"
                )


def check_trained(network: nn.Module, start: State, final: State, mask: Mask) -> None:
    """Raises `InputError` if this mask is no longer held, its pruned weights are not zero, or nothing has changed."""
    check_hold("train", mask, {weight.path: weight.kept for m in network.modules() for weight in held_weights(m)})
    for name, kept in mask.items():
        if revived := int(final[name][~kept].count_nonzero()):
            raise revived_error(f"train: {name}", revived)
    if all(name in final and torch.equal(tensor, final[name]) for name, tensor in start.items()):
        raise InputError("train: did not change the network; is it training a different one?")


def parameter_shapes(network: nn.Module, state: State) -> Shapes:
    """The shapes of the network's parameters, under their names in `state`, which is its `network_state`."""
    tensors = zip(state, named_tensors(network).values(), strict=False)  # extra states come last
    return {name: tensor.shape for name, tensor in tensors if isinstance(tensor, nn.Parameter)}


def check_parameters(by: str, before: Shapes, after: Shapes) -> None:
    """Raises `InputError` if parameters were added, removed or resized; `by` is what has changed them."""
    for name in [*before, *after]:
        if before.get(name) != after.get(name):
            change = "removed" if name not in after else "added" if name not in before else "changed the shape of"
            raise InputError(f"{by}: {change} {name}: {_ADVICE}")


def check_hold(by: str, mask: Mask, held: Mapping[str, Tensor]) -> None:
    """Raises `InputError` if the masks of `held` weights are not those of the mask."""
    for name, kept in mask.items():
        if name not in held or not torch.equal(held[name], kept):
            raise InputError(
                f"{by}: {name} is not held at zero where it is pruned: {by} replaced its layer or its hold; {_ADVICE}"
            )
