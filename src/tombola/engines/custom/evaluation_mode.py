"""A network that is being trained, and the process around it, made ready for an evaluation and restored after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from tombola.pruning.mask import State
from tombola.pruning.network_state import load_state, network_state, same_tensor
from tombola.utils.random_state import seeded


@contextmanager
def evaluation_mode(network: nn.Module, state: State, seed: int) -> Iterator[None]:
    """Within it, `network` is in evaluation mode, without gradients and outside of the training's autocast, and
    global random states start at `seed`. `state` is the network's current `network_state`.

    Afterwards everything is as it was: random states, the mode of each module, gradients, and the values of
    parameters and buffers; if the evaluation fails, all but these values.
    """
    with ExitStack() as stack:
        stack.enter_context(seeded(seed))
        stack.enter_context(torch.no_grad())
        for device in filter(torch.amp.is_autocast_available, ("cpu", "cuda", "mps", "xpu")):
            if torch.is_autocast_enabled(device):
                # Without its cache: that has casts of earlier weights, and the training would use those made here.
                stack.enter_context(torch.autocast(device, enabled=False, cache_enabled=False))
        stack.enter_context(_without_gradients(network))
        with _eval(network):
            yield
        _restore(network, state)


def _restore(network: nn.Module, state: State) -> None:
    """Copy back the values that are others now. They are compared because PyTorch does not count all changes, such as
    batch norm's of its statistics; the others are not touched, because a backward pass may need them."""
    now = network_state(network, state)
    load_state(network, {n: saved for n, saved in state.items() if n in now and not same_tensor(now[n], saved)})


@contextmanager
def _eval(network: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        network.train(modes[network])  # a network's own `train` may do more
        for module, training in modes.items():
            module.training = training


@contextmanager
def _without_gradients(network: nn.Module) -> Iterator[None]:
    gradients = {parameter: parameter.grad for parameter in network.parameters()}
    for parameter in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
