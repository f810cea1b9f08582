"""The user's model: a module, or a function that makes one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from tombola.engines.custom.fingerprint import fingerprint
from tombola.pruning.mask import State
from tombola.pruning.network_copy import copy_network
from tombola.runs.initial_state import StateLoader, no_stored_states
from tombola.utils.errors import InputError
from tombola.zoo.models.description import Network, Start
from tombola.zoo.models.initialise import reorder


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it, the global random states start at `seed`; the previous ones are restored at the end."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - a user's code may draw from it
    on_gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=on_gpus):
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


Model = nn.Module | Callable[[], nn.Module]
"""A network, or a function that makes one and draws its initial weights."""


@dataclass
class CustomModel:
    """Makes the networks that are trained. A module is copied for every training and never changed; a function is
    called for every training.

    Raises `InputError` for a module that cannot be copied, or is compiled.
    """

    model: Model
    _original: nn.Module | None = field(init=False, default=None)
    _fingerprints: dict[int, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            if not callable(self.model):
                raise InputError(f"model: should be a torch.nn.Module or make one, not {type(self.model).__name__}")
            return
        if hasattr(self.model, "_orig_mod"):
            raise InputError("model: should not be compiled: call torch.compile in train instead")
        self._original = self._copy(self.model)

    @property
    def can_redraw(self) -> bool:
        """Whether it can be made with other initial weights."""
        return self._original is None

    def start(self, seed: int) -> Start:
        """The description of the initial weights drawn by `seed`; those of a module do not depend on it."""
        name = getattr(self.model, "__qualname__", type(self.model).__qualname__)
        source = fingerprint(self.model if self._original is None else self._original)
        network = Network(name=f"own:{name}", source=source, inputs=(), classes=0)
        return Start(network=network, seed=seed if self.can_redraw else 0)

    def initial_network(self, start: Start, load_state: StateLoader = no_stored_states) -> nn.Module:
        """The network with the weights of `start`, none of them pruned.

        Raises `InputError` if the function does not make a module, or makes another one than before from the same
        seed, because then weights cannot be rewound.
        """
        network = self._draw(start.seed) if self._original is None else self._copy(self._original)
        if start.reuse is not None:
            reorder(network, start.reuse)
        if start.trained is not None:
            restore_network(network, load_state(start.trained.run))
        return network

    def _draw(self, seed: int) -> nn.Module:
        with seeded(seed):
            network = self.model()
        if not isinstance(network, nn.Module):
            raise InputError(f"model: should make a torch.nn.Module, not {type(network).__name__}")
        weights = fingerprint(network_state(network))
        if self._fingerprints.setdefault(seed, weights) != weights:
            raise InputError(
                "model: made other initial weights from the same seed: it should make a new network in each call, "
                "and draw from the global random states only"
            )
        return network

    @staticmethod
    def _copy(network: nn.Module) -> nn.Module:
        try:
            return copy_network(network)
        except InputError as error:
            raise InputError(f"{error}; or give a function that makes it") from error


def network_state(network: nn.Module) -> State:
    """CPU copies of all parameters and buffers, non-persistent buffers included; sharded tensors are gathered."""
    tensors = network.state_dict() | dict(network.named_buffers())
    return {
        name: (value.full_tensor() if hasattr(value, "full_tensor") else value).detach().cpu().clone()
        for name, value in tensors.items()
        if isinstance(value, Tensor)
    }


@torch.no_grad()
def restore_network(network: nn.Module, state: State) -> None:
    """Load what `network_state` returned, in place. Raises `InputError` where a tensor has another shape."""
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if name in state and state[name].shape != tensor.shape:
            raise InputError(
                f"train: changed the shape of {name} from {tuple(tensor.shape)} to {tuple(state[name].shape)}: the "
                "model should have its final shapes from the beginning"
            )
    known = network.state_dict().keys()
    network.load_state_dict({name: tensor for name, tensor in state.items() if name in known}, strict=False)
    for name, buffer in network.named_buffers():
        if name in state:
            buffer.copy_(state[name])
