"""Own: a network and a training function of the user's, and the runs made of them."""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tombola.engines.custom.fingerprint import fingerprint
from tombola.pruning.mask import State
from tombola.runs.initial_state import Recall, no_earlier_runs
from tombola.runs.run import BaseRun
from tombola.utils.errors import InputError
from tombola.utils.text import first_line
from tombola.zoo.models.description import Network, Start
from tombola.zoo.models.initialise import reorder

Model = nn.Module | Callable[[], nn.Module]
"""A network, or a function that makes one and draws its initial weights."""

Figures = float | Mapping[str, float]
"""How good a network is: a number, the greater the better; or several by name, of which the first is judged."""

Train = Callable[..., Figures | Any]
"""`train(network)`; where it has a parameter of that name, `train(network, begin=k)`: the iteration to begin at."""

Evaluate = Callable[[nn.Module], Figures]


class CustomRun(BaseRun):
    """One training by the user's own function."""

    procedure: str
    """A hash of that function, of what it refers to, and of the settings given with it; see
    `tombola.engines.custom.fingerprint`."""
    at_mark: bool = False
    """It ends where the function calls `tombola.mark()`."""


@dataclass
class CustomModel:
    """Where a user's network comes from. Of a module every training gets a copy, so that nothing is left of it in the
    next, or in the module itself; a function is called for every training.

    Raises `InputError` for a module that cannot be copied, or is compiled.
    """

    model: Model
    _pristine: nn.Module | None = field(init=False, default=None)
    _drawn: dict[int, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            if not callable(self.model):
                raise InputError(f"model: should be a torch.nn.Module or make one, not {type(self.model).__name__}")
            return
        if hasattr(self.model, "_orig_mod"):
            raise InputError("model: give the network as it is before torch.compile; train may compile it")
        self._pristine = self._copy(self.model)

    @property
    def drawn(self) -> bool:
        """Whether there can be other initial weights."""
        return self._pristine is None

    def described(self, seed: int) -> Start:
        """The start with the weights that are drawn by `seed`; those of a module, whatever the seed."""
        name = getattr(self.model, "__qualname__", type(self.model).__qualname__)
        about = self.model if self._pristine is None else self._pristine
        seed = seed if self.drawn else 0
        return Start(network=Network(name=f"own:{name}", source=fingerprint(about), inputs=(), classes=0), seed=seed)

    def begin(self, start: Start, recall: Recall = no_earlier_runs) -> nn.Module:
        """The network with the weights of `start`, none of them pruned.

        Raises `InputError` where the function makes no module, or one with other weights than before from the same
        seed: that would be rewinding that does not rewind.
        """
        network = self._draw(start.seed) if self._pristine is None else self._copy(self._pristine)
        if start.reuse is not None:
            reorder(network, start.reuse)
        if start.trained is not None:
            restore_network(network, recall(start.trained.run))
        return network

    def _draw(self, seed: int) -> nn.Module:
        with seeded(seed):
            network = self.model()
        if not isinstance(network, nn.Module):
            raise InputError(f"model: should make a torch.nn.Module, not {type(network).__name__}")
        weights = fingerprint(network_state(network))
        if self._drawn.setdefault(seed, weights) != weights:
            raise InputError(
                "model: gave other initial weights when it was called again: it should make a new network each time, "
                "and draw from the global random states alone"
            )
        return network

    @staticmethod
    def _copy(network: nn.Module) -> nn.Module:
        try:
            return copy.deepcopy(network)
        except Exception as error:
            raise InputError(
                f"model: cannot be copied ({first_line(error)}): give a function that makes it"
            ) from error


def network_state(network: nn.Module) -> State:
    """Copies of all parameters and buffers on the CPU, sharded ones whole; buffers that are no part of a `state_dict`
    too."""
    tensors = network.state_dict() | dict(network.named_buffers())
    return {
        name: _whole(value).detach().cpu().clone() for name, value in tensors.items() if isinstance(value, Tensor)
    }


def _whole(tensor: Any) -> Tensor:
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole


@torch.no_grad()
def restore_network(network: nn.Module, state: State) -> None:
    """Put a snapshot back, in place. Raises `InputError` where a tensor has another shape by now."""
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if name in state and state[name].shape != tensor.shape:
            raise InputError(
                f"train: {name} ended with shape {tuple(state[name].shape)} and began with {tuple(tensor.shape)}: "
                f"give a function that makes the network as it is in the end"
            )
    known = network.state_dict().keys()
    network.load_state_dict({name: tensor for name, tensor in state.items() if name in known}, strict=False)
    for name, buffer in network.named_buffers():
        if name in state:
            buffer.copy_(state[name])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global random states of Python, NumPy and torch begin at `seed`, and are put back afterwards."""
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


def takes_beginning(train: Train) -> bool:
    """Whether `train` has a parameter named `begin`, for the iteration that training begins at."""
    try:
        return "begin" in inspect.signature(train).parameters
    except (TypeError, ValueError):
        return False


def figures(given: Any, where: str) -> dict[str, float]:
    """Figures by name. Raises `InputError` where they are none."""
    found = as_figures(given)
    if not found:
        raise InputError(
            f"{where}: should return a number, the greater the better, or several by name, not {given!r:.60}"
        )
    return found


def as_figures(given: Any) -> dict[str, float]:
    """Figures by name, if they are such; else none."""
    named = given if isinstance(given, Mapping) else {"figure": given}
    if any(isinstance(value, bool | str | None) for value in named.values()):
        return {}
    try:
        return {str(name): float(value) for name, value in named.items()}
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor of several numbers
        return {}
