"""SynFlow: pruning without data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tombola.pruning.scores.inputs import ScoreInputs
from tombola.utils.errors import InputError


def synflow(grounds: ScoreInputs) -> dict[str, Tensor]:
    """|dR/dw w|, R the sum of outputs where all parameters are |θ| and the input is ones (Tanaka et al. 2020,
    section 6).

    Of the examples only the shape of one is looked at. In float64, since R is a product over layers. Batch norm is as
    before training, its affine part alone: it neither looks at data nor takes from the flow what it would need the
    mean for. Layer and group norm divide by the flow itself; with them the paper's conservation does not hold. The
    paper scores again in each of 100 rounds (see `ROUNDS`); scored once, it empties layers as others do.
    Raises `InputError` where network or examples are not known, or batches are not `(x, y)`.
    """
    network = grounds.network().eval().double().requires_grad_(False)
    parameters = dict(network.named_parameters())
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            _only_affine(module, next(iter(parameters.values())))
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.abs_()
    weights = {name: parameters[name].requires_grad_() for name in grounds.weights}
    with torch.enable_grad():
        flow = _output(network, _ones(grounds)).sum()
        gradients = torch.autograd.grad(flow, list(weights.values()), materialize_grads=True)
    return {name: (g * w.detach()).abs() for g, (name, w) in zip(gradients, weights.items(), strict=True)}


def _only_affine(norm: _BatchNorm, like: Tensor) -> None:
    """Give it the statistics of one that has not seen a batch, whether or not it keeps any."""
    like = next(norm.parameters(), like)
    norm.running_mean, norm.running_var = like.new_zeros(norm.num_features), like.new_ones(norm.num_features)


def _ones(grounds: ScoreInputs) -> Tensor:
    """An example of ones."""
    batch = next(grounds.batches())
    x = batch[0] if isinstance(batch, list | tuple) and batch else batch
    if not isinstance(x, Tensor):
        raise InputError(
            f"synflow needs the shape of an example: data should be batches (x, y), not {type(x).__name__}"
        )
    ones = torch.ones_like(x[:1])
    return ones.double() if ones.is_floating_point() else ones


def _output(network: nn.Module, ones: Tensor) -> Tensor:
    output: Any = network(ones)
    if not isinstance(output, Tensor):
        raise InputError(f"synflow needs a network that gives a tensor, not {type(output).__name__}")
    return output
