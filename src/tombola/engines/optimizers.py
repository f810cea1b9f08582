"""Optimizers of torch, their states and learning rates. They are fused: small steps are mostly overhead."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, optim

from tombola.engines.custom_optimizer import make_optimizer
from tombola.pruning.mask import State
from tombola.runs.run import Training
from tombola.runs.sparse_state import strip_prefix
from tombola.utils.host_copies import host_copies


def build_optimizer(
    parameters: Mapping[str, Tensor], normalisation: Collection[str], training: Training, capturable: bool = False
) -> optim.Optimizer:
    """The optimizer that `training` describes. Adam and AdamW have β = (0.9, 0.999), ε = 1e-8; weight decay is
    decoupled in AdamW only. Without `decay_normalisation` it does not apply to the parameters named in
    `normalisation`. With `capturable` its steps can be captured in a CUDA graph: a learning rate that changes is then
    kept on the device. Raises `InputError` for an optimizer by import path that cannot be made.
    """
    if training.custom_optimizer:
        custom, others = dict(parameters), {}
        if training.other_optimizer is not None:
            custom = {name: parameter for name, parameter in parameters.items() if parameter.ndim == 2}
            others = {name: parameter for name, parameter in parameters.items() if parameter.ndim != 2}
        made = [make_optimizer(_groups(custom, normalisation, training), training)] if custom else []
        if others and training.other_optimizer is not None:
            other = training.model_copy(update={"optimizer": training.other_optimizer})
            made.append(build_optimizer(others, normalisation, other, capturable))
        return made[0] if len(made) == 1 else JoinedOptimizer(made)
    groups = _groups(parameters, normalisation, training)
    lr: float | Tensor = training.lr
    if capturable and has_lr_schedule(training):
        lr = torch.tensor(training.lr, device=next(iter(parameters.values())).device)
    if training.optimizer in ("adam", "adamw"):
        kind = optim.Adam if training.optimizer == "adam" else optim.AdamW
        return kind(groups, lr=lr, weight_decay=training.weight_decay, fused=True, capturable=capturable)
    return optim.SGD(
        groups,
        lr=lr,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        nesterov=training.nesterov,
        fused=True,
    )


def _groups(
    parameters: Mapping[str, Tensor], normalisation: Collection[str], training: Training
) -> list[dict[str, Any]]:
    """The groups of an optimizer: parameters with weight decay, and those without, neither of them empty."""
    undecayed = set() if training.decay_normalisation else set(normalisation)
    groups: list[dict[str, Any]] = [{"params": [p for name, p in parameters.items() if name not in undecayed]}]
    if without := [p for name, p in parameters.items() if name in undecayed]:
        groups.append({"params": without, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


class JoinedOptimizer(optim.Optimizer):
    """Several optimizers, each of other parameters, with the groups and states of all."""

    def __init__(self, joined: Sequence[optim.Optimizer]) -> None:
        super().__init__(
            [parameter for one in joined for group in one.param_groups for parameter in group["params"]], {}
        )
        self.joined = joined
        self.param_groups = [group for one in joined for group in one.param_groups]
        for one in joined:
            one.state = self.state

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of each."""
        for one in self.joined:
            one.step(closure)


def has_lr_schedule(training: Training) -> bool:
    """Whether the learning rate changes during the training."""
    return training.schedule != "constant" or training.warmup.iterations > 0


def set_learning_rate(optimizer: optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step, without waiting for the device."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def optimizer_state(optimizer: optim.Optimizer, parameters: Mapping[str, Tensor]) -> State:
    """The state that `optimizer` has for these parameters, as in `Outcome.optimizer`."""
    values = {
        f"{entry}/{name}": value
        for name, parameter in parameters.items()
        for entry, value in _as_tensors(optimizer.state.get(parameter, {})).items()
    }
    return host_copies(values)


_NUMBERS: dict[str, Callable[[Any], Any]] = {"bool": bool, "int": int, "float": float}


def _as_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state of a parameter; its numbers as tensors, with their type in the name of the entry."""
    return {
        kind if isinstance(value, Tensor) else f"{type(value).__name__}:{kind}": value
        if isinstance(value, Tensor)
        else torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
        for kind, value in state.items()
        if value is not None
    }


def _from_tensor(entry: str, value: Tensor, parameter: Tensor) -> tuple[str, Any]:
    """The name and value of an entry of the state of `parameter`: the inverse of `_as_tensors`."""
    number, colon, kind = entry.partition(":")
    return (kind, _NUMBERS[number](value.item())) if colon else (entry, _laid_out_for(parameter, value))


def load_optimizer_state(optimizer: optim.Optimizer, parameters: Mapping[str, Tensor], state: State) -> None:
    """Load the state of another optimizer of the same class."""
    for entry, value in state.items():
        kind, _, name = entry.partition("/")
        kind, loaded = _from_tensor(kind, value, parameters[name])
        optimizer.state[parameters[name]][kind] = loaded


def _laid_out_for(parameter: Tensor, value: Tensor) -> Tensor:
    """A copy of an entry of the parameter's state, on its device, with its strides if it has its shape: kernels
    that update both go through their memory in one order."""
    if value.shape != parameter.shape:
        return value.to(parameter.device, copy=True)
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def training_state(optimizer: optim.Optimizer, device: torch.device) -> dict[str, Tensor]:
    """Copies, on the host, of the states of `optimizer` and of torch's random generators."""
    values = {
        f"optimizer/{index}/{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in _as_tensors(state).items()
    }
    return host_copies(values) | random_state(device)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of torch's random generators, as in `training_state`."""
    tensors = {"random/cpu": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["random/cuda"] = torch.cuda.get_rng_state(device)
    return tensors


def restore_training_state(tensors: Mapping[str, Tensor], optimizer: optim.Optimizer, device: torch.device) -> None:
    """Restore what `training_state` returned; other entries are ignored."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    optimizer.state.clear()
    for entry, tensor in strip_prefix(tensors, "optimizer").items():
        index, _, name = entry.partition("/")
        kind, loaded = _from_tensor(name, tensor, parameters[int(index)])
        optimizer.state[parameters[int(index)]][kind] = loaded
    torch.set_rng_state(tensors["random/cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random/cuda"], device)


def learning_rates(training: Training, first: int, count: int) -> npt.NDArray[np.float64]:
    """The learning rates of iterations `first` to `first + count - 1`, counted from 0; durations are in iterations.

    `step`: the rate is multiplied by `decay` at each milestone. `cosine`: it falls from `lr` towards 0 along half a
    cosine (Loshchilov & Hutter 2017, without restarts). Over the first `warmup` iterations the rate grows linearly
    to its value without warm-up (Goyal et al. 2017): iteration i has (i + 1) / warmup of it. Past the end of the
    training the last rate applies: fine-tuning continues with it.
    """
    length, warmup = training.length.iterations, training.warmup.iterations
    iteration = np.minimum(np.arange(first, first + count), length - 1)
    rates = np.full(count, training.lr)
    if training.schedule == "step":
        milestones = [milestone.iterations for milestone in training.milestones]
        rates *= training.decay ** np.searchsorted(milestones, iteration, side="right")
    if training.schedule == "cosine":
        progress = np.maximum(iteration - warmup, 0) / (length - warmup)
        rates *= (1 + np.cos(np.pi * progress)) / 2
    if warmup:
        rates *= np.minimum((iteration + 1) / warmup, 1)
    return rates
