"""A trial of the fused step: random networks trained with it and in plain PyTorch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.engines import optimizers
from tombola.engines.sparse.stack import Stack
from tombola.engines.stacked.fused_step import FusedStep
from tombola.engines.stacked.masked_optimizer import MaskedOptimizer
from tombola.pruning.mask import State
from tombola.runs.run import Training

RUNS = 2
STEPS = 2
TOLERANCE = 0.1
"""Of the change of a parameter: TF32 turns the sign of a few small gradients, and Adam's first steps are signs."""


class _Batch(NamedTuple):
    x: Tensor
    rows: Tensor
    labels: Tensor


def trial_agrees(
    stack: Stack, pruned: Collection[str], transposed: Collection[str], training: Training, device: torch.device
) -> bool:
    """Whether a few steps of `RUNS` networks on random examples are the same fused and in plain PyTorch. The weights
    named in `pruned` are so to one half, those in `transposed` are so in memory."""
    generator = torch.Generator().manual_seed(0)
    start = _to(_random_parameters(stack, transposed, generator), device)
    masks = {name: start[name] < 0 for name in pruned}
    batch = _Batch(*(tensor.to(device) for tensor in _random_batch(stack, training.batch_size, generator)))
    fused, losses = _trained(stack, start, masks, batch, training, fused=True)
    plain, expected = _trained(stack, start, masks, batch, training, fused=False)
    return torch.allclose(losses, expected, rtol=1e-2) and all(
        bool((fused[name] - plain[name]).norm() <= TOLERANCE * (plain[name] - begin).norm() + 1e-6)
        for name, begin in start.items()
    )


def _random_parameters(stack: Stack, transposed: Collection[str], generator: torch.Generator) -> State:
    parameters = {}
    for layer in stack.layers:
        weight = (torch.rand(RUNS, layer.outputs, layer.inputs, generator=generator) * 2 - 1) * layer.inputs**-0.5
        parameters[layer.weight] = weight.mT.contiguous().mT if layer.weight in transposed else weight
        if layer.bias:
            parameters[layer.bias_name] = torch.rand(RUNS, layer.outputs, generator=generator) * 0.1
    return parameters


def _random_batch(stack: Stack, size: int, generator: torch.Generator) -> _Batch:
    x = torch.rand(2 * size, stack.layers[0].inputs, generator=generator)
    rows = torch.randint(len(x), (RUNS, size), generator=generator)
    return _Batch(x, rows, torch.randint(stack.layers[-1].outputs, (RUNS, size), generator=generator))


def _to(state: Mapping[str, Tensor], device: torch.device) -> State:
    return {name: tensor.to(device) for name, tensor in state.items()}


def _trained(
    stack: Stack, start: State, pruned: State, batch: _Batch, training: Training, fused: bool
) -> tuple[State, Tensor]:
    """The parameters after the trial, and the sums of the losses."""
    parameters: State = {name: nn.Parameter(tensor.clone()) for name, tensor in start.items()}
    loss_sums = torch.zeros(RUNS, device=batch.x.device)
    optimizer = optimizers.build_optimizer(parameters, (), training, capturable=batch.x.is_cuda)
    if fused:
        step = FusedStep(stack, parameters, pruned, optimizer, training.batch_size, training.precision)
        for _ in range(STEPS):
            step(batch.x, batch.rows, batch.labels, loss_sums)
    else:
        masked = MaskedOptimizer(optimizer, parameters, pruned, kernels=False)
        for _ in range(STEPS):
            losses = _plain_losses(stack, parameters, batch)
            losses.sum().backward()  # type: ignore[no-untyped-call]
            masked.step()
            optimizer.zero_grad()
            loss_sums += losses.detach()
    return {name: parameter.detach() for name, parameter in parameters.items()}, loss_sums


def _plain_losses(stack: Stack, parameters: State, batch: _Batch) -> Tensor:
    """The mean loss of each run."""
    y = batch.x[batch.rows]
    for layer in stack.layers:
        y = y @ parameters[layer.weight].mT
        if layer.bias:
            y = y + parameters[layer.bias_name].unsqueeze(1)
        if layer.relu:
            y = y.relu()
    losses = functional.cross_entropy(y.flatten(0, 1), batch.labels.flatten(), reduction="none")
    return losses.view(batch.labels.shape).mean(1)
