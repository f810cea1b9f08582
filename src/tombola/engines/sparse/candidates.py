"""Which layers of a module can be sparse."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tombola.utils.calls import layer_input
from tombola.utils.module_hooks import has_hooks
from tombola.utils.random_state import preserve_rng_state

Shapes = dict[str, tuple[int, ...]]
"""The input shapes of the layers that a network calls, by their names as in `named_modules`."""


def why_not_sparse(network: nn.Module, name: str, shapes: Shapes) -> str | None:
    """Why the layer of this name must stay dense, or None if it need not."""
    layer = network.get_submodule(name)
    reason = None
    if type(layer) not in (nn.Linear, nn.Conv2d):
        reason = f"it is a {type(layer).__name__}"
    elif layer is network:
        reason = "it is the whole network"
    elif isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
        reason = f'its padding mode is "{layer.padding_mode}"'
    elif any(parameter.dtype != torch.float32 for parameter in layer.parameters()):
        reason = "it is not of float32"
    elif has_hooks(layer):
        reason = "it has hooks"
    elif _uses(network, layer) > 1:
        reason = "it shares parameters with another layer"
    elif name not in shapes:
        reason = "the network does not call it"
    return reason


def _uses(network: nn.Module, layer: nn.Module) -> int:
    """The largest number of names that a parameter of `layer` has in `network`."""
    own = {id(parameter) for parameter in layer.parameters()}
    names = [id(p) for _, p in network.named_parameters(remove_duplicate=False) if id(p) in own]
    return max((names.count(one) for one in own), default=0)


@torch.enable_grad()
def record_input_shapes(network: nn.Module, forward: Callable[[], object]) -> Shapes:
    """The input shapes of the linear and convolutional layers of `network` in their first calls by `forward`, in
    evaluation mode. Autograd is on: without it, transformers of torch may not call their layers, or fail with hooks.
    """
    shapes: Shapes = {}

    def record(name: str, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = layer_input(args, kwargs)
        if x is not None:
            shapes.setdefault(name, tuple(x.shape))

    handles = [
        module.register_forward_pre_hook(functools.partial(record, name), with_kwargs=True)
        for name, module in network.named_modules()
        if type(module) in (nn.Linear, nn.Conv2d)
    ]
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with preserve_rng_state():
            forward()
    finally:
        for module, training in modes.items():
            module.training = training
        for handle in handles:
            handle.remove()
    return shapes
