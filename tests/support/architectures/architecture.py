"""How an architecture is written down: a function of no arguments that returns a network and an example."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

Example = Tensor | tuple[Any, ...] | dict[str, Any]
"""A batch as a network takes it: a tensor, a tuple of positional arguments or a dict of keyword arguments."""
Made = tuple[nn.Module, Example]
Factory = Callable[[], Made]


def seeded(factory: Factory) -> Factory:
    """Draws always the same weights and example, and what `lively` draws."""

    def made() -> Made:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(factory.__name__.encode()))
            network, example = factory()
            return lively(network, example).eval(), example

    made.__name__, made.__doc__ = factory.__name__, factory.__doc__
    return made


@torch.no_grad()
def lively(network: nn.Module, example: Example) -> nn.Module:
    """Draw, in place, weights with which outputs depend on inputs through all layers, and what initialisation leaves
    alike for all units: biases, PReLU, norms. Statistics of batch norm are near those of the example. Returns the
    network."""
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, nn.PReLU):
                parameter.uniform_(0.05, 0.5)
            elif parameter.dim() > 1:
                parameter.normal_(0, 1.5 / math.sqrt(parameter[0].numel()))  # about one by its number of inputs
            elif name.endswith("bias"):
                parameter.normal_(0, 0.3)
            else:  # of norms, and layer scale
                parameter.normal_(1, 0.4)
    _draw_statistics([module for module in network.modules() if isinstance(module, _BatchNorm)], network, example)
    return network


def _draw_statistics(norms: list[_BatchNorm], network: nn.Module, example: Example) -> None:
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    call(network.train(), example)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean += 0.5 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
        norm.running_var.clamp_(min=0.1).mul_(torch.rand_like(norm.running_var) * 1.5 + 0.5)
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.zero_()


def call(network: nn.Module, example: Example) -> Any:
    """What `network` returns for the example."""
    if isinstance(example, Tensor):
        return network(example)
    return network(*example) if isinstance(example, tuple) else network(**example)


def in_dtype(example: Example, dtype: torch.dtype) -> Any:
    """The example with its numbers, not its indices and masks, in this type."""
    return pytree.tree_map_only(Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t, example)


def outputs(network: nn.Module, example: Example) -> list[Tensor]:
    """The tensors that `network` returns for the example, in their order."""
    with torch.no_grad():
        returned = call(network, example)
    if isinstance(returned, Mapping):  # Hugging Face's outputs
        returned = dict(returned)
    return [leaf for leaf in pytree.tree_leaves(returned) if isinstance(leaf, Tensor)]
