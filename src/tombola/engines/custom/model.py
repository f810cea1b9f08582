"""The user's model: a module, or a function that makes one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from tombola.engines.custom.fingerprint import fingerprint
from tombola.engines.custom.hooks import tensor_hooks
from tombola.pruning.mask import State
from tombola.pruning.network_state import load_state, name_in, named_tensors, network_state
from tombola.runs.initial_state import StateLoader, initial_state, no_stored_states
from tombola.utils.errors import InputError
from tombola.utils.network_copy import copy_network
from tombola.utils.random_state import seeded
from tombola.zoo.models.description import Network, Start
from tombola.zoo.models.initialise import change_signs, reorder

Model = nn.Module | Callable[[], nn.Module]
"""A network, or a function that makes one and draws its initial weights."""


@dataclass
class CustomModel:
    """Makes the networks that are trained. A module is copied for every training and never changed; a function is
    called for every training.

    Raises `InputError` for a module that cannot be copied, or not with everything that affects its training, and for
    one that is compiled.
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
        for name, parameter in self.model.named_parameters():
            if tensor_hooks(parameter):
                raise InputError(f"model: {name} has hooks, which copies lose: give a function that makes the model")
        self._original = self._copy(self.model)

    @property
    def can_redraw(self) -> bool:
        """Whether it can be made with other initial weights."""
        return self._original is None

    @property
    def draws_anew(self) -> bool:
        """Whether another seed gives other initial weights: a function may set its own."""
        if not self.can_redraw:
            return False
        one, other = (network_state(self.initial_network(self.start(seed))) for seed in (0, 1))
        return any(name not in other or not torch.equal(tensor, other[name]) for name, tensor in one.items())

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
            restore_network(network, initial_state(start.model_copy(update={"signs": None}), load_state))
        if start.signs is not None:
            change_signs(network, start.signs, lambda other: self.initial_network(other, load_state))
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


def restore_network(network: nn.Module, state: State) -> None:
    """Load what `network_state` returned, in place. Raises `InputError` where a tensor has another shape."""
    for name, tensor in named_tensors(network).items():
        saved = state.get(name_in(state, name))
        if saved is not None and saved.shape != tensor.shape:
            raise InputError(
                f"train: changed the shape of {name} from {tuple(tensor.shape)} to {tuple(saved.shape)}: the "
                "model should have its final shapes from the beginning"
            )
    load_state(network, state)
