"""Ways to make a training step, and to put other values into parameters, besides `torch.optim.Optimizer.step`."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim.swa_utils import AveragedModel

LR = 0.3
Assign = Callable[[nn.Module, list[Tensor]], None]
"""Gives the parameters of a network these values, in the order of `parameters()`."""


@torch.no_grad()
def in_place(network: nn.Module, values: list[Tensor]) -> None:
    for parameter, value in zip(network.parameters(), values, strict=True):
        parameter += value - parameter


@torch.no_grad()
def copied(network: nn.Module, values: list[Tensor]) -> None:
    for parameter, value in zip(network.parameters(), values, strict=True):
        parameter.copy_(value)


@torch.no_grad()
def foreach(network: nn.Module, values: list[Tensor]) -> None:
    torch._foreach_copy_(list(network.parameters()), values)


def loaded(network: nn.Module, values: list[Tensor]) -> None:
    names = [name for name, _ in network.named_parameters()]
    network.load_state_dict(dict(zip(names, values, strict=True)), strict=False)


def as_vector(network: nn.Module, values: list[Tensor]) -> None:
    vector_to_parameters(parameters_to_vector(values), network.parameters())


def new_storage(network: nn.Module, values: list[Tensor]) -> None:
    for parameter, value in zip(network.parameters(), values, strict=True):
        parameter.data = value.clone()


def swapped(network: nn.Module, values: list[Tensor]) -> None:
    for parameter, value in zip(network.parameters(), values, strict=True):
        torch.utils.swap_tensors(parameter, nn.Parameter(value.clone()))


def in_data(network: nn.Module, values: list[Tensor]) -> None:
    for parameter, value in zip(network.parameters(), values, strict=True):
        parameter.data.copy_(value)


def new_parameters(network: nn.Module, values: list[Tensor]) -> None:
    for (name, _), value in zip([*network.named_parameters()], values, strict=True):
        path, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(path), attribute, nn.Parameter(value.clone()))


COUNTED: list[Assign] = [in_place, copied, foreach, loaded, as_vector, new_storage, swapped]
"""Changes that a hold notices by itself."""
UNCOUNTED: list[Assign] = [in_data, new_parameters]
"""Changes that PyTorch does not count."""


def descend(network: nn.Module, x: Tensor, y: Tensor, assign: Assign, steps: int = 3) -> None:
    """Gradient descent without an optimizer."""
    for _ in range(steps):
        parameters = list(network.parameters())
        gradients = torch.autograd.grad(functional.cross_entropy(network(x), y), parameters)
        assign(network, [(p - LR * g).detach() for p, g in zip(parameters, gradients, strict=True)])


def descend_functionally(network: nn.Module, x: Tensor, y: Tensor, steps: int = 3) -> Callable[[Tensor], Tensor]:
    """Gradient descent of copies, which are written back at the end; returns a function that uses the copies."""
    values = {name: p.detach().clone().requires_grad_() for name, p in network.named_parameters()}
    for _ in range(steps):
        loss = functional.cross_entropy(functional_call(network, values, (x,)), y)
        gradients = torch.autograd.grad(loss, list(values.values()))
        values = {
            n: (p - LR * g).detach().requires_grad_() for (n, p), g in zip(values.items(), gradients, strict=True)
        }
    copied(network, [p.detach() for p in values.values()])
    return lambda inputs: functional_call(network, values, (inputs,))


def average(network: nn.Module, others: list[nn.Module]) -> nn.Module:
    """An average of the weights of a network and others of its shape."""
    made = AveragedModel(copy.deepcopy(network))
    for each in (network, *others):
        made.update_parameters(each)
    return made
