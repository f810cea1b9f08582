"""Networks and initial weights of a ticket, made from an untrusted description.

Only built-in networks are made, by name, so nothing is imported. A network is first made without memory, on torch's
meta device, and compared with the mask. A description of a billion layers is refused as soon as it exceeds the mask.
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

EXTRA_NUMBERS = 2**20
"""The numbers allowed for biases, normalisation and position embeddings, besides four for each prunable weight."""

TENSORS_PER_LAYER = 10
"""The tensors allowed per layer: weight and bias, those of a normalisation and its statistics, and a few more."""


def check_drawable(start: Start, mask: Mask) -> None:
    """Raises `InputError` unless `start` is a built-in network with the layers of `mask` and untrained weights."""
    drawn = start.trained is None and start.signs is None
    if not drawn or any(n.name not in MODELS for n in (start.network, start.like) if n is not None):
        raise InputError("its initial weights cannot be drawn: they were trained, or its network is not built in")
    check_network(start.network, mask)
    if start.like is not None:
        _on_meta_device(start.like, mask)


def check_network(network: Network, mask: Mask) -> None:
    """Raises `InputError` unless `network` is built in and has the layers of `mask`."""
    if network.name not in MODELS:
        raise InputError(f"its network {network.name!r:.80} is not built in; give a network: ticket.into(network)")
    meta = _on_meta_device(network, mask)
    shapes = {name: tuple(parameter.shape) for name, parameter in meta.named_parameters()}
    if not {*prunable(meta)} <= {*mask} or any(shapes.get(name) != shape for name, shape in mask.shapes.items()):
        raise InputError("its network and its mask have different layers")


def make_network(network: Network, mask: Mask) -> nn.Module:
    """The network with arbitrary weights. Raises `InputError` as `check_network` does."""
    check_network(network, mask)
    with _construction_errors():
        return initial_network(Start(network=network, seed=0))


def draw_weights(start: Start, mask: Mask) -> State:
    """The initial weights that `start` describes, a whole `state_dict`, zero where `mask` prunes them. Raises
    `InputError` as `check_drawable` does."""
    check_drawable(start, mask)
    with _construction_errors():
        network = initial_network(start)
    mask.apply_(network)
    return network.state_dict()


class _SizeLimit(TorchFunctionMode):
    """Raises `InputError` as soon as the tensors of a network exceed what `mask` allows. For this thread only."""

    def __init__(self, mask: Mask) -> None:
        super().__init__()
        self.numbers = 4 * mask.size + EXTRA_NUMBERS
        self.tensors = TENSORS_PER_LAYER * (len(mask) + 1)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_, Tensor.sign_, Tensor.mul_):
            return args[0]  # on the meta device, drawing is slower than on the CPU
        made = func(*args, **kwargs or {})
        if isinstance(made, Tensor) and not any(isinstance(value, Tensor) for value in args):
            self.numbers -= made.numel()
            self.tensors -= 1
            if self.numbers < 0 or self.tensors < 0:
                raise InputError("its network is larger than its mask")
        return made


def _on_meta_device(network: Network, mask: Mask) -> nn.Module:
    """The network without memory."""
    with _construction_errors(), torch.device("meta"), _SizeLimit(mask):
        return make(network)


@contextmanager
def _construction_errors() -> Iterator[None]:
    """Turn every error of making a network into an `InputError`, because the description is invalid."""
    try:
        yield
    except Exception as error:
        raise InputError(f"its network cannot be made: {one_line(error)}") from error
