"""A trial of the fused step: random networks trained with it and in plain PyTorch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.engines import optimizers
from tombola.engines.stacked.fused_step import FusedStep
from tombola.engines.stacked.masked_optimizer import MaskedOptimizer
from tombola.engines.stacked.stack import Stack
from tombola.pruning.mask import State
from tombola.runs.run import Training

RUNS = 2
STEPS = 2
TOLERANCES = {"fp32": 1e-3, "tf32": 0.05}
"""Of the losses, the optimizer's state, and the changes of parameters by SGD, all relative."""
ADAM_TOLERANCES = {"fp32": 0.02, "tf32": 0.5}
"""Of the changes of parameters by Adam, whose first steps are signs: rounding turns those of the smallest gradients,
and in a short bias a single one weighs much."""


class _Batch(NamedTuple):
    x: Tensor
    rows: Tensor
    labels: Tensor


def trial_agrees(
    stack: Stack, pruned: Collection[str], transposed: Collection[str], training: Training, device: torch.device
) -> bool:
    """Whether a few steps of `RUNS` networks on random examples are the same fused and in plain PyTorch. The weights
    named in `pruned` are so to one half, those in `transposed` are so in memory. Learning rate and weight decay, if
    there is one, are such that their effects show."""
    adam = training.optimizer == "adam"
    shown = {"lr": 1e-3 if adam else 0.1, "weight_decay": 0.1 if training.weight_decay else 0.0}
    training = training.model_copy(update=shown)
    generator = torch.Generator().manual_seed(0)
    start = _to(_random_parameters(stack, transposed, generator), device)
    masks = {name: start[name] < 0 for name in pruned}
    batch = _Batch(*(tensor.to(device) for tensor in _random_batch(stack, training.batch_size, generator)))
    fused, losses, states = _trained(stack, start, masks, batch, training, fused=True)
    plain, expected, expected_states = _trained(stack, start, masks, batch, training, fused=False)
    tolerance = TOLERANCES[training.precision]
    change, expected_change = ({name: end[name] - start[name] for name in start} for end in (fused, plain))
    return (
        torch.allclose(losses, expected, rtol=tolerance)
        and _all_close(states, expected_states, tolerance)
        and _all_close(change, expected_change, ADAM_TOLERANCES[training.precision] if adam else tolerance)
    )


def _all_close(some: State, others: State, tolerance: float) -> bool:
    """Whether all tensors are alike, by the norm of their difference."""
    return some.keys() == others.keys() and all(
        bool((some[name].cpu() - other.cpu()).norm() <= tolerance * other.cpu().norm() + 1e-9)
        for name, other in others.items()
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
) -> tuple[State, Tensor, State]:
    """The parameters after the trial, the sums of the losses, and the optimizer's state."""
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
    ends = {name: parameter.detach() for name, parameter in parameters.items()}
    return ends, loss_sums, optimizers.optimizer_state(optimizer, parameters)


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
