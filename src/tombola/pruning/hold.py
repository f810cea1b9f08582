"""hold: keep pruned weights at zero during training, with any optimizer and in any wrapper."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from torch import nn

from tombola.pruning.held_weight import HeldWeight, held_weight, held_weights, shape_error
from tombola.pruning.mask import Mask
from tombola.pruning.weight_use import warn_if_zeros_change
from tombola.pruning.zero_before_use import update_hooks
from tombola.utils.errors import InputError, unknown

_WRAPPERS = {
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "AveragedModel": "module",
    "OptimizedModule": "_orig_mod",  # of torch.compile
}
"""By class of wrapper: the attribute that is the wrapped network, and so a prefix of all its parameter names."""


def hold(network: nn.Module, mask: Mask) -> Held:
    """Set the pruned weights of `network` to zero, and keep them at zero until the hold is removed.

    The gradient of a pruned weight is set to zero as soon as a backward pass has accumulated it, so gradient
    clipping, loss scaling and optimizers that use whole matrices work as if the forward pass multiplied the weights
    by the mask. After each step of any `torch.optim.Optimizer` the pruned weights are set to zero again, because
    earlier momentum, or an update computed from a whole matrix, moves them. Any other change that PyTorch counts, as
    in a loop of your own under `torch.no_grad()`, is undone before the next forward pass and before `state_dict`.
    PyTorch does not count changes of `parameter.data`: `state_dict` and the first evaluation (`eval()`) after a
    training pass look at the weights, and raise `InputError` if a pruned one is not zero.

    Parameter names do not change. Copies and pickles of the network and of its layers are held too, independently;
    a dense `state_dict` is pruned after loading. A new hold replaces the former one. Names in the mask may have the
    prefixes of wrappers, such as `DistributedDataParallel`, or not.

    A parameter that replaces a held one, as with `fully_shard`, is noticed before the next step; gradient clipping
    before that step uses the dense gradient. The same holds for gradients that no backward pass has accumulated.

    `torch.jit.script` takes no network with these hooks: call `release` first.

    Logs a warning about layers whose forward pass computes other weights from these, as weight standardisation does.
    Raises `InputError`, and changes nothing, if the mask has an unknown name or a different shape.

    >>> with hold(network, mask):  # doctest: +SKIP
    ...     train(network)
    """
    places = _held_places(network, mask)
    release(network)
    weights = []
    for (layer, attribute), (name, parameter) in places.items():
        weight = HeldWeight(layer, attribute, mask[name], parameter, name)
        weight.register()
        weight.zero(parameter)
        weight.zero_gradient(parameter)
        weights.append(weight)
        if attribute == "weight" and weight.active:
            warn_if_zeros_change(layer, name)
    update_hooks(network)
    return Held(network, mask, weights)


def held(network: nn.Module) -> Mask | None:
    """The mask of the held weights of `network`; None if no weight is held."""
    found, wrapped = {}, _wrapped_paths(network)
    for name, _ in network.named_parameters():
        weight = held_weight(network, name)
        if weight is not None:
            found[_without_wrappers(name, wrapped)] = weight.kept
    return Mask(found) if found else None


def check_held(network: nn.Module) -> None:
    """Look at the held weights of `network` before something is said about it, or it is saved: changes that PyTorch
    has counted are set to zero as before a forward pass. Raises `InputError` for any other pruned weight that is not
    zero. Waits for a GPU."""
    for layer in network.modules():
        for weight in held_weights(layer):
            weight.check()


def release(network: nn.Module) -> None:
    """Remove all holds on `network` and its layers; the weights do not change."""
    for layer in network.modules():
        for weight in held_weights(layer):
            weight.remove()
    update_hooks(network)


@dataclass(eq=False, repr=False)
class Held:
    """A hold of a `mask` on a `network`. As a context manager it is removed at the end of the block."""

    network: nn.Module
    mask: Mask
    _weights: list[HeldWeight]

    def remove(self) -> None:
        """Remove the hold with all its hooks. A hold that has replaced this one stays."""
        for weight in self._weights:
            weight.remove()
        update_hooks(self.network)

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def _held_places(network: nn.Module, mask: Mask) -> dict[tuple[nn.Module, str], tuple[str, nn.Parameter]]:
    """Every layer and attribute name that has a parameter of the mask; the name in the mask, and the parameter."""
    wrapped = _wrapped_paths(network)
    unwrapped: dict[str, nn.Parameter] = {}
    owners: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)
    for path, layer in network.named_modules(remove_duplicate=False):
        for attribute, parameter in layer.named_parameters(recurse=False, remove_duplicate=False):
            unwrapped[_without_wrappers(f"{path}.{attribute}" if path else attribute, wrapped)] = parameter
            owners[id(parameter)].append((layer, attribute))
    exact = dict(network.named_parameters(remove_duplicate=False))
    places = {}
    for name, kept in mask.items():
        parameter = exact[name] if name in exact else _find(name, unwrapped)
        if parameter.shape != kept.shape:
            raise shape_error(name, kept, parameter)
        places.update(dict.fromkeys(owners[id(parameter)], (name, parameter)))
    return places


def _find(name: str, unwrapped: dict[str, nn.Parameter]) -> nn.Parameter:
    """The parameter of that name, which may have the prefixes of wrappers that `network` does not have."""
    parts = [part for part in name.split(".") if part not in _WRAPPERS.values()]
    for known in (name, ".".join(parts)):
        if known in unwrapped:
            return unwrapped[known]
    if f"{name}_orig" in unwrapped:
        raise InputError(f"mask: {name} is pruned by torch.nn.utils.prune; call tombola.pruning.torch_prune.absorb")
    raise unknown("parameter in the mask", name, unwrapped)


def _wrapped_paths(network: nn.Module) -> set[str]:
    """The paths of the networks inside wrappers."""
    return {
        f"{path}.{_WRAPPERS[base.__name__]}" if path else _WRAPPERS[base.__name__]
        for path, layer in network.named_modules(remove_duplicate=False)
        for base in type(layer).__mro__
        if base.__name__ in _WRAPPERS
    }


def _without_wrappers(name: str, wrapped: set[str]) -> str:
    """The name of a parameter without the prefixes of wrappers."""
    parts = name.split(".")
    return ".".join(part for index, part in enumerate(parts) if ".".join(parts[: index + 1]) not in wrapped)
