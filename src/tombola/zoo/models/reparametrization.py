"""Networks whose weights are computed from other tensors, which are trained in their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from tombola.pruning.layers import display_name
from tombola.pruning.mask import State
from tombola.utils.errors import InputError
from tombola.zoo.models.parametrizations import PARAMETRIZATIONS


def reparametrize(network: nn.Module, by: str, layers: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """Compute the weights named in `layers` by the parametrization `by`, with these options, in place; return
    `network`. What it draws comes from torch's global generator, after the network's own weights.

    If the parametrization is frozen, its parameters are the only ones: weights, biases and normalisation become
    buffers, so that training does not change them.
    Raises `InputError` if layers share a weight, which would have a different parametrization in each, and for
    weights that are not those of linear or convolutional layers, whose modules use more than the attribute `weight`.
    """
    parametrization = PARAMETRIZATIONS[by]
    parameters = dict(network.named_parameters())
    for name in layers:
        if name not in parameters or name.rpartition(".")[2] != "weight":
            raise InputError(f'model: {by} does not support {name}; leave_out=["{display_name(name)}"] skips it')
    names: dict[Tensor, str] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if names.setdefault(parameter, name) in layers and names[parameter] != name:
            raise InputError(f"model: {names[parameter]} and {name} share one weight; {by} needs one for each layer")
    if getattr(parametrization, "frozen", False):
        _freeze(network)
    for name, options in layers.items():
        layer, _, weight = name.rpartition(".")
        module = network.get_submodule(layer)
        parametrize.register_parametrization(module, weight, parametrization(getattr(module, weight), **options))
    return network


def original_name(name: str) -> str:
    """The name, in a reparametrized network, of the tensor that the weight `name` is computed from.

    >>> original_name("fc1.weight")
    'fc1.parametrizations.weight.original'
    """
    layer, _, weight = name.rpartition(".")
    return f"{layer}.parametrizations.{weight}.original" if layer else f"parametrizations.{weight}.original"


def weight_name(name: str) -> str:
    """The inverse of `original_name`; other names stay as they are.

    >>> weight_name("fc1.parametrizations.weight.original"), weight_name("fc1.bias")
    ('fc1.weight', 'fc1.bias')
    """
    return name.removesuffix(".original").replace("parametrizations.", "") if _is_original(name) else name


def _is_original(name: str) -> bool:
    return f".{name}".endswith(".original") and "parametrizations" in name.split(".")


def scores_of(state: State) -> dict[str, Tensor]:
    """The score of every weight, by the name of the weight, from the `state_dict` of a network with a parametrization
    that has `scores`."""
    ending = ".0.scores"
    return {
        name.removesuffix(ending).replace("parametrizations.", ""): scores
        for name, scores in state.items()
        if name.endswith(ending)
    }


def effective_state(network: nn.Module) -> State:
    """The `state_dict` of the same network without parametrizations, with the weights that it uses in evaluation
    mode. `network` is left in this mode."""
    network.eval()
    tensors = {name: value for name, value in network.state_dict().items() if "parametrizations." not in name}
    for path, module in network.named_modules():
        if parametrize.is_parametrized(module):
            for name in module.parametrizations:
                tensors[f"{path}.{name}" if path else name] = getattr(module, name).detach().clone()
    return tensors


def _freeze(network: nn.Module) -> None:
    """Make every parameter a buffer of the same name."""
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach())
