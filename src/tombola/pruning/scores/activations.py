"""Scores that need the inputs of layers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tombola.pruning.layers import Kind, Layer, by_layer, display_name
from tombola.pruning.prunable_layers import layers_of, weight_attributes
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.utils.calls import layer_input

_log = logging.getLogger(__name__)

WITH_INPUTS: tuple[Kind, ...] = ("linear", "convolution", "transposed convolution", "Conv1D", "projection")
"""The kinds of layers whose inputs can be read in a call of their module."""

ReadInput = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Tensor | None]
"""(a module, the arguments of a call of it) -> the input of one of its layers."""


def wanda(inputs: ScoreInputs) -> dict[str, Tensor]:
    """|w_ij| ‖x_j‖₂, the norm of input feature j over all examples and tokens (Wanda, Sun et al. 2024, section 3).

    In a convolution j is the input channel, and the norm is over all positions too. A weight that several layers
    share uses the inputs of all of them. The paper compares weights within each output row, as the scope `row` does.
    There are no scores of recurrent and bilinear layers, stacked experts, embeddings and single parameters: a module
    does not show what these are multiplied by. Raises `InputError` if the network or examples are missing.
    """
    network = inputs.network()
    layers = [layer for layer in layers_of(network, inputs.weights) if layer.kind in WITH_INPUTS]
    squares: dict[str, Tensor] = {}

    def hook_of(layer: Layer, read: ReadInput) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def add_squares(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = read(module, args, kwargs)
            if x is not None:
                squares[layer.name] = squares.get(layer.name, 0) + _squared_inputs(module, x)

        return add_squares

    hooks = [
        module.register_forward_pre_hook(hook_of(layer, read), with_kwargs=True)
        for module, layer, read in inputs_of(network, layers)
    ]
    with torch.no_grad():
        for batch in inputs.batches():
            inputs.loss(network, batch)
    for hook in hooks:
        hook.remove()
    if unused := [layer.label for layer in layers if layer.name not in squares]:
        _log.warning("wanda got no inputs of %s: their weights score 0", ", ".join(unused))
    scored = {name: weight for name, weight in inputs.weights.items() if name in {la.parameter for la in layers}}
    return {
        name: torch.cat(
            [part.abs() * _norms(squares, layer, part) for layer, part in by_layer({name: weight}).items()]
        )
        for name, weight in scored.items()
    }


def _norms(squares: dict[str, Tensor], layer: str, weight: Tensor) -> Tensor:
    return squares[layer].sqrt() if layer in squares else torch.zeros_like(weight)


def inputs_of(network: nn.Module, layers: list[Layer]) -> Iterator[tuple[nn.Module, Layer, ReadInput]]:
    """The modules that use a layer's weight, and how to read the layer's input in a call of theirs."""
    by_parameter: dict[int, list[Layer]] = {}
    for layer in layers:
        by_parameter.setdefault(id(layer.module._parameters[layer.attribute]), []).append(layer)
    for module in network.modules():
        if isinstance(module, nn.MultiheadAttention):
            for layer in (layer for layer in layers if layer.module is module):
                yield module, layer, _argument(layer)
            for layer in by_parameter.get(id(module.out_proj.weight), []):
                yield module, layer, _attended
        elif weight_attributes(module) == ["weight"]:
            for layer in by_parameter.get(id(module._parameters["weight"]), []):
                yield module, layer, lambda _, args, kwargs: layer_input(args, kwargs)


def _argument(projection: Layer) -> ReadInput:
    """The query, key or value that attention is called with."""
    names = ("query", "key", "value")
    part = display_name(projection.name).rpartition(".")[2]
    index = next(index for index, name in enumerate(names) if part in (name, f"{name[0]}_proj_weight"))

    def read(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        found = args[index] if index < len(args) else kwargs.get(names[index])
        return found if isinstance(found, Tensor) else None

    return read


def _attended(attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """What attention multiplies by its output projection: its output with the identity in that place."""
    assert isinstance(attention, nn.MultiheadAttention)
    weight, bias = attention.out_proj.weight, attention.out_proj.bias
    attention.out_proj.weight = nn.Parameter(torch.eye(len(weight), dtype=weight.dtype, device=weight.device))
    attention.out_proj.bias = None if bias is None else nn.Parameter(torch.zeros_like(bias))
    try:
        attended: Tensor = attention.forward(*args, **kwargs)[0]
    finally:
        attention.out_proj.weight, attention.out_proj.bias = weight, bias
    return attended


def _squared_inputs(module: nn.Module, x: Tensor) -> Tensor:
    """The sum of squares of each weight's input feature; of a shape that broadcasts to the weight's."""
    x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    if not isinstance(module, _ConvNd):
        features = x.flatten(0, -2).square().sum(0) if x.dim() > 1 else x.square()  # [in]
        return features if isinstance(module, nn.Linear | nn.MultiheadAttention) else features.unsqueeze(1)  # Conv1D
    dims = len(module.kernel_size)
    channels = x.movedim(-1 - dims, 0).flatten(1).square().sum(1)  # [in]
    if isinstance(module, _ConvTransposeNd):
        by_weight = channels.unsqueeze(1)  # its weight is [in, out / groups, *kernel]
    else:  # [out, in / groups, *kernel]
        by_weight = channels.view(module.groups, -1).repeat_interleave(module.out_channels // module.groups, 0)
    return by_weight[(..., *(None,) * dims)]
