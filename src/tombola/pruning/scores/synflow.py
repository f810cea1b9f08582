"""SynFlow: pruning without data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from tombola.pruning.scores.inputs import ScoreInputs
from tombola.utils.errors import InputError


def synflow(inputs: ScoreInputs) -> dict[str, Tensor]:
    """|dR/dw w|, with R the sum of the outputs if all parameters are |θ| and the input is ones (Tanaka et al. 2020,
    section 6).

    Needs only the shape of an example. Computed in float64, as R is a product over layers. Batch norm has its initial
    statistics, so it is only its affine part, and independent of data. Layer and group norm divide by the flow, so
    the paper's conservation law does not hold with them. In a single round (see `ROUNDS`) synflow empties layers.
    Raises `InputError` if the network or examples are missing, or batches are not `(x, y)`.
    """
    network = inputs.network().eval().double().requires_grad_(False)
    parameters = dict(network.named_parameters())
    for module in network.modules():
        if isinstance(module, _BatchNorm):  # set the initial statistics, also where it does not track any
            like = next(iter(module.parameters()), next(iter(parameters.values())))
            size = module.num_features
            module.running_mean, module.running_var = like.new_zeros(size), like.new_ones(size)
    for parameter in parameters.values():
        parameter.abs_()
    weights = {name: parameters[name].requires_grad_() for name in inputs.weights}
    with torch.enable_grad():
        output: Any = network(_ones(inputs))
        if not isinstance(output, Tensor):
            raise InputError(f"model: synflow needs a network that returns a tensor, not {type(output).__name__}")
        gradients = torch.autograd.grad(output.sum(), list(weights.values()), materialize_grads=True)
    return {name: (g * w.detach()).abs() for g, (name, w) in zip(gradients, weights.items(), strict=True)}


def _ones(inputs: ScoreInputs) -> Tensor:
    """An input of one example, all ones."""
    batch = next(inputs.batches())
    x = batch[0] if isinstance(batch, list | tuple) and batch else batch
    if not isinstance(x, Tensor):
        what = type(x).__name__
        raise InputError(f"data: should have batches (x, y) with a tensor x for synflow, not {what}; it uses no loss")
    ones = torch.ones_like(x[:1])
    return ones.double() if ones.is_floating_point() else ones
