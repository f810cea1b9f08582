"""Recognises feed-forward stacks of linear layers in modules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from tombola.utils.module_hooks import has_hooks


@dataclass(frozen=True)
class StackLayer:
    """A linear layer with the activation and dropout of its outputs."""

    name: str
    """Of the module, as in `named_modules`."""
    inputs: int
    outputs: int
    bias: bool
    relu: bool = False
    dropout: float = 0.0
    """The probability that an output is dropped."""

    @property
    def weight(self) -> str:
        """The name of its weight."""
        return f"{self.name}.weight" if self.name else "weight"

    @property
    def bias_name(self) -> str:
        """The name of its bias, if it has one."""
        return f"{self.name}.bias" if self.name else "bias"


@dataclass(frozen=True)
class Stack:
    """Linear layers one after another, with ReLU and dropout between them."""

    layers: tuple[StackLayer, ...]
    dropout: float = 0.0
    """Of the inputs."""


def recognise_stack(network: nn.Module) -> Stack | str:
    """`network` as a stack, or the reason why it is not one.

    A stack is an `nn.Sequential` (of any depth) of Flatten, Linear, ReLU, Dropout and Identity that ends with a
    Linear, all of float32, without hooks, shared or frozen weights, or subclasses of these modules.
    """
    layers: list[StackLayer] = []
    dropout = 0.0
    for name, module in _children(network):
        if has_hooks(module):
            return f"{name or 'the network'} has hooks"
        if type(module) is nn.Linear:
            if module.weight.dtype != torch.float32:
                return f"{name} is of {module.weight.dtype}"
            layers.append(StackLayer(name, module.in_features, module.out_features, module.bias is not None))
        elif type(module) is nn.ReLU and layers:
            if layers[-1].dropout:
                return f"{name} comes after a dropout"
            layers[-1] = StackLayer(**vars(layers[-1]) | {"relu": True})
        elif type(module) is nn.Dropout:
            if layers[-1].dropout if layers else dropout:
                return f"{name} is the second dropout in a row"
            if layers:
                layers[-1] = StackLayer(**vars(layers[-1]) | {"dropout": module.p})
            else:
                dropout = module.p
        elif type(module) is nn.Flatten:
            if layers or (module.start_dim, module.end_dim) != (1, -1):
                return f"{name} flattens something other than the inputs"
        elif type(module) not in (nn.Identity, nn.Sequential):
            return f"{name or 'the network'} is a {type(module).__name__}"
    if not layers:
        return "it has no linear layer"
    if layers[-1].relu or layers[-1].dropout:
        return f"something comes after {layers[-1].name}, its last linear layer"
    parameters = dict(network.named_parameters())
    if len(parameters) != sum(1 + layer.bias for layer in layers):
        return "layers share weights"
    if not all(parameter.requires_grad for parameter in parameters.values()):
        return "some of its parameters are frozen"
    return Stack(tuple(layers), dropout)


def _children(network: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The network and its modules in the order of calls; named as in `named_modules`."""
    yield prefix, network
    if type(network) is nn.Sequential:
        for name, child in network._modules.items():  # unlike named_children, with children that appear twice
            assert child is not None
            yield from _children(child, f"{prefix}.{name}" if prefix else name)
