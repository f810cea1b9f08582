"""Networks whose `state_dict` has other names than their parameters and buffers, or fewer entries."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.support.custom_search import Small


class Prefixed(Small):
    """Every name gets a prefix, and loses it again when a state is loaded."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return {f"model.{name}": tensor for name, tensor in super().state_dict(*args, **kwargs).items()}

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        plain = {name.removeprefix("model."): tensor for name, tensor in state_dict.items()}
        return super().load_state_dict(plain, *args, **kwargs)


class HeadOnly(Small):
    """As when only an adapter is saved."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        state = super().state_dict(*args, **kwargs)
        return {name: tensor for name, tensor in state.items() if name.startswith("output")}


class Swapped(Small):
    """Two entries have each other's name."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        state = super().state_dict(*args, **kwargs)
        state["fc1.bias"], state["norm.bias"] = state["norm.bias"], state["fc1.bias"]
        return state


class Transposing(nn.Linear):
    """A layer that saves its weight transposed."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}kernel"] = destination.pop(f"{prefix}weight").T


class WithLayer(Small):
    def __init__(self) -> None:
        super().__init__()
        self.fc1.__class__ = Transposing  # with the same weights


class Hooked(Small):
    """A hook drops one entry and renames another."""

    def __init__(self) -> None:
        super().__init__()
        self._register_state_dict_hook(_rename)


def _rename(_: nn.Module, state: Any, prefix: str, *__: Any) -> None:
    del state[f"{prefix}fc1.weight"]
    state[f"{prefix}head"] = state.pop(f"{prefix}output.weight")


class Refusing(Small):
    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("call save()")


RENAMED: dict[str, type[Small]] = {
    kind.__name__: kind for kind in (Prefixed, HeadOnly, Swapped, WithLayer, Hooked, Refusing)
}


class WithExtraState(Small):
    """Its extra state, a tensor, counts the examples that it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, x: Any) -> Any:
        self.seen += len(x)
        return super().forward(x)

    def get_extra_state(self) -> torch.Tensor:
        return torch.tensor(self.seen)

    def set_extra_state(self, state: torch.Tensor) -> None:
        self.seen = int(state)
