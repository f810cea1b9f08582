"""Drawing: the initial weights of a ticket, or its network, from a description that anybody may have written.

Only tombola's own networks are made, by name: nothing is imported, whatever a description names. Before a weight is
drawn the network is made without any, on torch's meta device, and held against the mask; a description of a billion
layers ends where there are more than the mask can have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tombola.pruning.mask import Mask, State, prunable
from tombola.runs.initial_state import initial_network
from tombola.utils.errors import InputError
from tombola.utils.text import one_line
from tombola.zoo.models import MODELS, make
from tombola.zoo.models.description import Network, Start

SPARE = 2**20
"""Beside four numbers for each prunable weight, so many may be in biases, normalisation and position embeddings."""

TENSORS = 10
"""For each layer: weight and bias, those of a normalisation and its statistics, and some to spare."""


def drawable(start: Start) -> bool:
    """Whether the weights of `start` are drawn, and not what a training left, for a network of tombola's own."""
    return start.trained is None and all(n.name in MODELS for n in (start.network, start.like) if n is not None)


def check_drawable(start: Start, mask: Mask) -> None:
    """Raises `InputError` unless `start` can be drawn, and gives a network with the layers of `mask`."""
    if not drawable(start):
        raise InputError("its initial weights cannot be drawn: its network is not one of tombola's own")
    check_network(start.network, mask)
    if start.like is not None:
        _sketch(start.like, mask)


def check_network(network: Network, mask: Mask) -> None:
    """Raises `InputError` unless `network` is one of tombola's own, and has the layers of `mask`."""
    if network.name not in MODELS:
        raise InputError(f"its network, {network.name!r:.80}, is not one of tombola's own: give it to ticket.into()")
    made = _sketch(network, mask)
    parameters = dict(made.named_parameters())
    if {name: tuple(parameters[name].shape) for name in prunable(made)} != mask.shapes:
        raise InputError("the network that it describes has other layers than its mask")


def network_of(network: Network, mask: Mask) -> nn.Module:
    """The network with whatever weights. Raises `InputError` as `check_network` does."""
    check_network(network, mask)
    with _refusing():
        return initial_network(Start(network=network, seed=0))


def draw(start: Start, mask: Mask) -> State:
    """The initial weights that `start` describes, a whole `state_dict`, zero where `mask` prunes them.

    Raises `InputError` as `check_drawable` does.
    """
    check_drawable(start, mask)
    with _refusing():
        network = initial_network(start)
    mask.apply_(network)
    return network.state_dict()


class _Sketch(TorchFunctionMode):
    """Networks are made of tensors without numbers, and raise `InputError` as soon as they have more of them than
    `mask` gives reason to expect. For this thread only."""

    def __init__(self, mask: Mask) -> None:
        super().__init__()
        self.numbers = 4 * mask.size + SPARE
        self.tensors = TENSORS * (len(mask) + 1)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_, Tensor.sign_, Tensor.mul_):
            return args[0]  # nothing is drawn: without numbers that takes torch longer than with
        made = func(*args, **kwargs or {})
        if isinstance(made, Tensor) and not any(isinstance(value, Tensor) for value in args):
            self.numbers -= made.numel()
            self.tensors -= 1
            if self.numbers < 0 or self.tensors < 0:
                raise InputError("the network that it describes is larger than its mask")
        return made


def _sketch(network: Network, mask: Mask) -> nn.Module:
    """The network without numbers."""
    with _refusing(), torch.device("meta"), _Sketch(mask):
        return make(network)


@contextmanager
def _refusing() -> Iterator[None]:
    """Whatever a description makes a network raise is the file's fault."""
    try:
        yield
    except Exception as error:
        raise InputError(f"its network cannot be made: {one_line(error)}") from error
