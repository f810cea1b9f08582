"""Supermasks: the weights of a network stay at their initial values, and a score for each weight is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tombola.pruning.layers import display_name
from tombola.pruning.mask import State
from tombola.utils.errors import InputError


def supermask(network: nn.Module, keep: Mapping[str, int]) -> nn.Module:
    """Change `network` so that training it is edge-popup (Ramanujan et al. 2020, section 3), and return it.

    `keep` gives, by the name of its weight, how many weights of a layer are used: those with the highest scores.
    The scores, drawn as in the authors' code (Kaiming uniform, a = √5), are the only parameters: weights, biases and
    normalisation become buffers, so that training does not change them.
    Raises `InputError` if layers share a weight, which would have a different score in each, and for weights that
    are not those of linear or convolutional layers, whose modules use more than the attribute `weight`.
    """
    layers = list(keep)
    parameters = dict(network.named_parameters())
    for name in layers:
        if name not in parameters or name.rpartition(".")[2] != "weight":
            raise InputError(
                f'model: edge-popup does not support {name}; leave_out=["{display_name(name)}"] skips it'
            )
    names: dict[Tensor, str] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if names.setdefault(parameter, name) in layers and names[parameter] != name:
            raise InputError(
                f"model: {names[parameter]} and {name} share one weight; edge-popup needs one for each layer"
            )
    _freeze(network)
    for name in layers:
        layer, _, weight = name.rpartition(".")
        module = network.get_submodule(layer)
        parametrize.register_parametrization(module, weight, EdgePopup(getattr(module, weight), keep[name]))
    return network


def scores_of(state: State) -> dict[str, Tensor]:
    """|score| of every weight, by the name of the weight, from the `state_dict` of a supermask."""
    ending = ".0.scores"
    return {
        name.removesuffix(ending).replace("parametrizations.", ""): scores.abs()
        for name, scores in state.items()
        if name.endswith(ending)
    }


class EdgePopup(nn.Module):
    """Keeps the weights with the highest |score|, and sets the others to zero."""

    def __init__(self, weight: Tensor, keep: int) -> None:
        super().__init__()
        self.keep = keep
        self.scores = nn.Parameter(torch.empty_like(weight))
        nn.init.kaiming_uniform_(self.scores, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        kept: Tensor = _TopK.apply(self.scores.abs(), self.keep)  # type: ignore[no-untyped-call]
        return weight * kept


class _TopK(torch.autograd.Function):
    """1 where a score is among the `keep` highest, else 0. The gradient is passed straight through (Bengio et al.
    2013), so that scores of unused weights are trained too. Ties are broken as in `keep_best`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(scores: Tensor, keep: int) -> Tensor:
        if not keep:
            return torch.zeros_like(scores)
        flat = scores.flatten()
        # As fast as `kthvalue`, which is not deterministic on CUDA, and much faster than sorting.
        least = flat.topk(keep, sorted=False).values.amin()
        above, equal = flat > least, flat == least
        last_of_equal = equal & (equal.flip(0).cumsum(0).flip(0) <= keep - above.sum())
        return (above | last_of_equal).to(scores.dtype).view_as(scores)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """The backward pass needs nothing."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return gradient, None


def _freeze(network: nn.Module) -> None:
    """Make every parameter a buffer of the same name."""
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach())
