"""A compact network from its `state_dict` and the original architecture."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from tombola.exports.resizing.norms import entries, lacks_weight
from tombola.exports.resizing.sizes import GROUP_SIZES
from tombola.exports.resizing.tensors import apply_updates, plan_updates, set_tensors
from tombola.pruning.mask import State
from tombola.utils.errors import InputError
from tombola.utils.network_copy import copy_network
from tombola.zoo.models.resnet import ResidualBlock, Subsample


def load_resized(network: nn.Module, state: State) -> nn.Module:
    """A copy of `network` with layers as small as in `state`, and that state loaded.

    `network` has the architecture that a compact network was made of, and `state` is the compact one's `state_dict`.
    Whether layers fit each other is not checked. Raises `InputError` for other names or dtypes, for shapes that
    compaction cannot produce, and for smaller layers next to a `Subsample` that is not the shortcut of a
    `ResidualBlock`: no tensor has its number of channels.
    """
    types = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    for name, tensor in state.items():
        own_type = types.get(name, types.get(f"{name.removesuffix('bias')}weight", tensor.dtype))  # of a new bias
        if tensor.dtype != own_type:
            raise InputError(f"{name} is {tensor.dtype} in this state, but {own_type} in the network")
    smaller = copy_network(network)
    changed, refused = _shrink_to(smaller, state)
    own = smaller.state_dict()
    for name in [*own, *state]:
        ours, theirs = (tuple(each[name].shape) if name in each else "missing" for each in (own, state))
        if ours != theirs:
            raise InputError(
                f"this state has another architecture: {name} is {theirs} in it, but {ours} in the network"
            )
    for path in refused:
        raise InputError(f"this state has another architecture: {path or 'the network'} cannot have such sizes")
    shortcuts = {module.shortcut for module in smaller.modules() if isinstance(module, ResidualBlock)}
    for path, module in smaller.named_modules():
        if changed and isinstance(module, Subsample) and module not in shortcuts:
            raise InputError(
                f"{path or 'a Subsample'}: its number of channels in a smaller network is not part of a state_dict"
            )
    smaller.load_state_dict(state)
    return smaller


def _shrink_to(network: nn.Module, state: State) -> tuple[bool, list[str]]:
    """Give modules the sizes that they have in `state`, where that is possible. Returns whether any has become
    smaller, and the paths of those that cannot have such sizes."""
    own = network.state_dict(keep_vars=True)
    tensors = {
        name: tensor
        for name, tensor in state.items()
        if (_is_smaller(tensor, own[name].shape) if name in own else _can_be_added(network, name, tensor))
    }
    updates, refused = plan_updates(network, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    possible = {
        name: torch.empty_like(tensor, requires_grad=False)
        for name, tensor in tensors.items()
        if name.rpartition(".")[0] not in refused
    }
    set_tensors(network, possible)
    apply_updates([(module, found) for module, found in updates if module not in refused.values()])
    return bool(possible), list(refused)


def _is_smaller(tensor: Tensor, shape: torch.Size) -> bool:
    sizes = list(zip(tensor.shape, shape, strict=False))
    return tensor.dim() == len(shape) and tensor.shape != shape and all(1 <= size <= old for size, old in sizes)


def _can_be_added(network: nn.Module, name: str, tensor: Tensor) -> bool:
    """Whether a compact network may have a tensor that the original one does not: a bias, the constant weight of a
    norm without learned weights, or the sizes of a convolution's groups."""
    path, _, local = name.rpartition(".")
    try:
        module = network.get_submodule(path)
    except AttributeError:
        return False
    if local == "bias" and isinstance(module, nn.Linear | _ConvNd):
        return module.bias is None and tensor.dim() == 1
    if local == GROUP_SIZES:
        return isinstance(module, _ConvNd) and tensor.dim() == 1 and len(tensor) > 0
    return lacks_weight(module, local) and _is_smaller(tensor, entries(module))
