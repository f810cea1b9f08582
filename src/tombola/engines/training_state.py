"""Snapshots: the state of optimizers and generators as flat names and tensors, for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, optim

from tombola.pruning.mask import State


def entries(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The entries under `name/`, without that."""
    return {entry.removeprefix(f"{name}/"): t for entry, t in tensors.items() if entry.startswith(f"{name}/")}


def optimizer_state(optimizer: optim.Optimizer, parameters: Mapping[str, Tensor]) -> State:
    """What `optimizer` remembers of these parameters, as in `Outcome.optimizer`."""
    return {
        f"{kind}/{name}": value.detach().cpu().clone()
        for name, parameter in parameters.items()
        for kind, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def load_optimizer_state(optimizer: optim.Optimizer, parameters: Mapping[str, Tensor], state: State) -> None:
    """Have `optimizer` go on from what one of its kind remembered."""
    for entry, value in state.items():
        kind, _, name = entry.partition("/")
        optimizer.state[parameters[name]][kind] = value.to(parameters[name].device, copy=True)


def training_state(optimizer: optim.Optimizer, device: torch.device) -> dict[str, Tensor]:
    """What `optimizer` remembers, and where torch's generators stand."""
    tensors = {
        f"optimizer/{index}/{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if value is not None
    }
    tensors["random/cpu"] = torch.get_rng_state()
    if device.type == "cuda":
        tensors["random/cuda"] = torch.cuda.get_rng_state(device)
    return tensors


def restore_training_state(tensors: Mapping[str, Tensor], optimizer: optim.Optimizer, device: torch.device) -> None:
    """Go back to what `training_state` found; other entries do not matter."""
    states: dict[int, dict[str, Tensor]] = {}
    for entry, tensor in entries(tensors, "optimizer").items():
        index, _, name = entry.partition("/")
        states.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(tensors["random/cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random/cuda"], device)
