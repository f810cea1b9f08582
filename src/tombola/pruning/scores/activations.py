"""Scores that need the inputs of layers."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tombola.pruning.scores.inputs import ScoreInputs
from tombola.utils.calls import layer_input

_log = logging.getLogger(__name__)


def wanda(inputs: ScoreInputs) -> dict[str, Tensor]:
    """|w_ij| ‖x_j‖₂, the norm of input feature j over all examples and tokens (Wanda, Sun et al. 2024, section 3).

    In a convolution j is the input channel, and the norm is over all positions too. A weight that several layers
    share uses the inputs of all of them. The paper compares weights within each output row; here the scope decides.
    Raises `InputError` if the network or examples are missing.
    """
    network = inputs.network()
    names = {id(parameter): name for name, parameter in network.named_parameters() if name in inputs.weights}
    squares: dict[str, Tensor] = {}

    def add_squares(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        name, x = names[id(layer.weight)], layer_input(args, kwargs)
        if x is not None:
            squares[name] = squares.get(name, 0) + _squared_inputs(layer, x)

    hooks = [
        layer.register_forward_pre_hook(add_squares, with_kwargs=True)
        for layer in network.modules()
        if isinstance(layer, nn.Linear | _ConvNd) and id(layer.weight) in names
    ]
    with torch.no_grad():
        for batch in inputs.batches():
            inputs.loss(network, batch)
    for hook in hooks:
        hook.remove()
    unused = [name.removesuffix(".weight") for name in inputs.weights if name not in squares]
    if unused:  # the layer is not called, or another module uses its weight without calling it
        _log.warning("wanda got no inputs of %s: their weights score 0", ", ".join(unused))
    return {n: w.abs() * squares.get(n, torch.zeros_like(w)).sqrt() for n, w in inputs.weights.items()}


def _squared_inputs(layer: nn.Module, x: Tensor) -> Tensor:
    """The sum of squares of each weight's input feature; of a shape that broadcasts to the weight's."""
    x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    if not isinstance(layer, _ConvNd):
        return x.flatten(0, -2).square().sum(0) if x.dim() > 1 else x.square()  # [in]
    dims = len(layer.kernel_size)
    channels = x.movedim(-1 - dims, 0).flatten(1).square().sum(1)  # [in]
    if isinstance(layer, _ConvTransposeNd):
        by_weight = channels.unsqueeze(1)  # its weight is [in, out / groups, *kernel]
    else:  # [out, in / groups, *kernel]
        by_weight = channels.view(layer.groups, -1).repeat_interleave(layer.out_channels // layer.groups, 0)
    return by_weight[(..., *(None,) * dims)]
