"""Scores that look at what layers are given."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tombola.pruning.scores.inputs import ScoreInputs

_log = logging.getLogger(__name__)


def wanda(grounds: ScoreInputs) -> dict[str, Tensor]:
    """|w_ij| ‖x_j‖₂, the norm of input feature j over all examples and tokens (Wanda, Sun et al. 2024, section 3).

    Of a convolution, j is the input channel and its norm goes over all places too; a channel of a group is met by the
    filters of that group alone. A weight that layers share sees the inputs of all of them. The paper compares weights
    of the same output row; here as everywhere the scope says what is compared.
    Raises `InputError` where network or examples are not known.
    """
    network = grounds.network()
    names = {id(parameter): name for name, parameter in network.named_parameters() if name in grounds.weights}
    zero = {name: torch.zeros_like(weight) for name, weight in grounds.weights.items()}
    norms = dict(zero)  # squared, until the end

    def see(layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        name = names[id(layer.weight)]
        norms[name] = norms[name] + _squares(layer, given[0] if given else named["input"])

    hooks = [
        layer.register_forward_pre_hook(see, with_kwargs=True)
        for layer in network.modules()
        if isinstance(layer, nn.Linear | _ConvNd) and id(layer.weight) in names
    ]
    with torch.no_grad():
        for batch in grounds.batches():
            grounds.loss(network, batch)
    for hook in hooks:
        hook.remove()
    unseen = [name.removesuffix(".weight") for name, squares in norms.items() if squares is zero[name]]
    if unseen:  # an unused layer, or one whose weight is used by another module without calling it
        _log.warning("wanda has not seen any input of %s: its weights score nothing", ", ".join(unseen))
    return {name: weight.abs() * norms[name].sqrt() for name, weight in grounds.weights.items()}


def _squares(layer: nn.Module, x: Tensor) -> Tensor:
    """The sum of squares of the input feature that each weight meets; of a shape that broadcasts to the weight's."""
    x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    if not isinstance(layer, _ConvNd):
        return x.flatten(0, -2).square().sum(0) if x.dim() > 1 else x.square()  # [in]
    places = len(layer.kernel_size)
    channels = x.movedim(-1 - places, 0).flatten(1).square().sum(1)  # [in]
    if isinstance(layer, _ConvTransposeNd):
        met = channels.unsqueeze(1)  # its weight is [in, out / groups, *kernel]
    else:  # [out, in / groups, *kernel]
        met = channels.view(layer.groups, -1).repeat_interleave(layer.out_channels // layer.groups, 0)
    return met[(..., *(None,) * places)]
