"""The network that a training starts with: with drawn weights, or with those that an earlier training ended with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from tombola.pruning.mask import State
from tombola.runs.outcome import without_pruned
from tombola.runs.run import BaseRun
from tombola.zoo.models import build
from tombola.zoo.models.description import Start, Trained
from tombola.zoo.models.initialise import change_signs
from tombola.zoo.models.reparametrization import effective_state


class StateLoader(Protocol):
    """Loads the final states of earlier runs."""

    def __call__(self, key: str, /, *, optimizer: bool = False) -> State:
        """The `state_dict` that the run with this key ended with, or its optimizer's state. Raises `LookupError` if
        it is missing."""


def no_stored_states(key: str, /, *, optimizer: bool = False) -> State:  # noqa: ARG001
    """The loader to use if no run starts from another. Raises `LookupError`."""
    raise LookupError(f"run {key} is not known here")


def initial_network(start: Start, load_state: StateLoader = no_stored_states) -> nn.Module:
    """The unpruned network of `start` with its weights, on the CPU and in training mode. Raises what `build` and
    `load_state` raise."""
    network = build(start)
    if start.trained is not None:
        network.load_state_dict(_trained_state(start, start.trained, load_state))
    if start.signs is not None:
        change_signs(network, start.signs, lambda other: initial_network(other, load_state))
    return network


def initial_state(start: Start, load_state: StateLoader = no_stored_states) -> State:
    """The `state_dict` of the initial network. If it comes from an earlier run, no network is built."""
    if start.trained is None or start.signs is not None:
        return initial_network(start, load_state).state_dict()
    return _trained_state(start, start.trained, load_state)


def _trained_state(start: Start, trained: Trained, load_state: StateLoader) -> State:
    state = load_state(trained.run)
    if trained.through is not None:
        return computed_weights(Start(network=trained.through, seed=start.seed), state)
    if trained.averaged:
        return _average(state, dict(trained.averaged), load_state)
    if trained.towards is None:
        return state
    return interpolate(state, load_state(trained.towards), trained.share)


def computed_weights(start: Start, state: State) -> State:
    """The `state_dict` of the network without its parametrizations, with the weights that they compute from `state`,
    that of the network of `start`."""
    parametrized = build(start)
    parametrized.load_state_dict(state)
    return effective_state(parametrized)


def _average(state: State, others: Mapping[str, float], load_state: StateLoader) -> State:
    """The weighted mean of several final states; integer tensors are taken from `state`. It is summed in float64, in
    the order of the keys, so that it does not depend on the order of `others`."""
    rest = 1 - sum(others.values())
    summed = {name: value.double() * rest for name, value in state.items() if value.is_floating_point()}
    for key in sorted(others):
        other = load_state(key)
        for name, total in summed.items():
            total.add_(other[name].double(), alpha=others[key])
    return state | {name: total.to(state[name].dtype) for name, total in summed.items()}


def masked_network(run: BaseRun, load_state: StateLoader = no_stored_states) -> nn.Module:
    """The initial network of `run`, with pruned weights zero. Raises what `build` and `load_state` raise."""
    network = initial_network(run.start, load_state)
    run.mask.apply_(network)
    return network


def initial_optimizer_state(run: BaseRun, load_state: StateLoader = no_stored_states) -> State:
    """The optimizer state that `run` starts with, as in `Outcome.optimizer`; empty if its optimizer is reset.
    Raises what `load_state` raises."""
    trained = run.start.trained
    if trained is None or not trained.optimizer:
        return {}
    return without_pruned(load_state(trained.run, optimizer=True), run.mask)


def interpolate(one: State, other: State, share: float) -> State:
    """(1 - share) · one + share · other, including running statistics; integer tensors are taken from `one`."""

    def between(a: Tensor, b: Tensor) -> Tensor:
        return torch.lerp(a, b, share) if a.is_floating_point() or a.is_complex() else a

    return {name: between(value, other[name]) for name, value in one.items()}
