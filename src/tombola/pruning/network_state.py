"""The state of a network: all its parameters and buffers, under their own names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from tombola.pruning.held_weight import held_weight, held_weights
from tombola.pruning.mask import Mask, State

_WRAPPED = ("_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_orig_mod")
"""What torch calls the layer within a wrapper; part of the names of its parameters."""


def named_tensors(network: nn.Module, persistent: bool = False) -> dict[str, Tensor]:
    """The parameters and buffers, not copied, in the order of a `state_dict`; tied ones under each of their names.

    Names are those of `named_parameters` and `named_buffers`, whatever the network's own `state_dict` makes of them:
    it may rename or drop entries. `persistent`: without the buffers that no `state_dict` has.
    """
    found = {}
    for path, module in network.named_modules(remove_duplicate=False):
        dropped = module._non_persistent_buffers_set if persistent else ()
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and name not in dropped:
                found[f"{path}.{name}" if path else name] = tensor
    return found


def persistent_tensors(network: nn.Module) -> dict[str, Tensor]:
    """What a ticket holds: parameters, persistent buffers, and extra states that are tensors; not copied."""
    return named_tensors(network, persistent=True) | _extra_states(network)


def network_state(network: nn.Module, before: Mapping[str, Tensor] | None = None) -> State:
    """CPU copies of all parameters and buffers, non-persistent ones included, and of extra states that are tensors;
    sharded tensors are gathered.

    `before` is an earlier state of the network: layers that were wrapped in place since, as for activation
    checkpointing, keep the names that they have in it. Pruned weights of a hold are set to zero first, as before a
    `state_dict`; see `HeldWeight.before_use` for the error raised where they cannot be."""
    for module in network.modules():
        for weight in held_weights(module):
            weight.before_use()
    return {
        name if before is None else name_in(before, name): _cpu_copy(tensor)
        for name, tensor in (named_tensors(network) | _extra_states(network)).items()
    }


def name_in(state: Mapping[str, Tensor], name: str) -> str:
    """The name that a tensor of the network has in an earlier state: that of now, or without the wrappers that its
    layers have got since."""
    return name if name in state else _without_wrappers(name)


def same_state(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two states of a network have the same names and values."""
    return one.keys() == other.keys() and all(same_tensor(tensor, other[name]) for name, tensor in one.items())


def same_tensor(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same type, shape and values; NaN differs from itself."""
    return one.dtype == other.dtype and torch.equal(one, other)


def prune_state(network: nn.Module, state: State, mask: Mask) -> None:
    """Set the pruned weights in a state of the network to zero, in place, under every name of a tied weight."""
    tensors = named_tensors(network)
    kept = {id(tensors[name]): kept for name, kept in mask.items()}
    for name in tensors.keys() & state.keys():
        if id(tensors[name]) in kept:
            state[name].masked_fill_(~kept[id(tensors[name])], 0)


@torch.no_grad()
def load_state(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy the tensors of a `network_state` into the network, in place; pruned weights of a hold stay zero. Layers
    may have been wrapped in place since. Names that only one of the two has are passed over."""
    for name, tensor in named_tensors(network).items():
        saved = state.get(name_in(state, name))
        if saved is not None:
            if 0 in tensor.stride():  # an expanded buffer, with one entry in many places
                once = tuple(slice(1) if stride == 0 else slice(None) for stride in tensor.stride())
                tensor[once].copy_(saved[once])
            else:
                tensor.copy_(saved)
            if (weight := held_weight(network, name)) is not None:
                weight.zero(tensor)
    for name, module in _with_extra_state(network):
        if name_in(state, name) in state:
            module.set_extra_state(state[name_in(state, name)])


def _cpu_copy(tensor: Tensor) -> Tensor:
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole.detach().cpu().clone()


def _with_extra_state(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for path, module in network.named_modules(remove_duplicate=False):
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            yield f"{path}._extra_state" if path else "_extra_state", module


def _extra_states(network: nn.Module) -> dict[str, Tensor]:
    states = {name: module.get_extra_state() for name, module in _with_extra_state(network)}
    return {name: state for name, state in states.items() if isinstance(state, Tensor)}


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPED)
