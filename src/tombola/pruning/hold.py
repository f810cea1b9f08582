"""Hold: pruned weights stay at zero while a network is trained, by whatever optimizer and in whatever wrapper."""

from __future__ import annotations

from collections import defaultdict

from torch import Tensor, nn

from tombola.pruning.held_weight import HeldWeight, held_weight, held_weights, misfit
from tombola.pruning.mask import Mask
from tombola.utils.errors import InputError, unknown

_WRAPPERS = {
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "AveragedModel": "module",
    "OptimizedModule": "_orig_mod",  # of torch.compile
}
"""By class, what a wrapper calls the network within it: a part of all names that is not the network's."""


def hold(network: nn.Module, mask: Mask) -> Held:
    """Set the pruned weights of `network` to zero, and keep them there until the hold is removed.

    The gradient of a pruned weight becomes zero as soon as a backward pass has accumulated it, so that clipping, loss
    scaling and optimizers that look at a whole matrix see what they would see if the forward pass multiplied the
    weights by the mask. The weights are set to zero again after each step of any `torch.optim.Optimizer`: momentum
    from before, or an update made of a whole matrix, moves them.

    No parameter is renamed and no key added to a `state_dict`. Copies and pickles of the network, and of its layers,
    are held as it is, and independently of it; a dense `state_dict` is pruned when it has been loaded. Another hold
    replaces the one before. Names in the mask are the network's own, or those that wrappers around it make of them.

    A parameter replaced by another, as `fully_shard` does, is noticed before the next step, so steps are right; a
    clipping between the first backward pass and that step alone sees the dense gradient. So does one of gradients
    that no backward pass accumulated, but somebody set.

    Raises `InputError`, and changes nothing, where the mask has a name that the network does not have, or another
    shape.

    >>> with hold(network, mask):  # doctest: +SKIP
    ...     train(network)
    """
    places = _places(network, mask)
    release(network)
    weights = []
    for (layer, name), (parameter, kept) in places.items():
        weight = HeldWeight(layer, name, kept, parameter)
        weight.place()
        weight.zero(parameter)
        if parameter.grad is not None:
            weight.zero(parameter.grad)
        weights.append(weight)
    return Held(network, mask, weights)


def held(network: nn.Module) -> Mask | None:
    """The mask that `network`, or what is held of it, is held by; None where nothing is."""
    found, within = {}, _within_wrappers(network)
    for name, _ in network.named_parameters():
        path, _, own = name.rpartition(".")
        weight = held_weight(network.get_submodule(path), own)
        if weight is not None:
            found[_plain(name, within)] = weight.kept
    return Mask(found) if found else None


def release(network: nn.Module) -> None:
    """Remove whatever hold is on `network` or parts of it, a copy's too; its weights stay as they are."""
    for layer in network.modules():
        for weight in held_weights(layer):
            weight.remove()


class Held:
    """A hold: its `network`, its `mask`, and how to end it. As a context manager it ends with the block."""

    def __init__(self, network: nn.Module, mask: Mask, weights: list[HeldWeight]) -> None:
        self.network = network
        self.mask = mask
        self._weights = weights

    def remove(self) -> None:
        """Let go; nothing is left on the modules. A hold that has replaced this one stays."""
        for weight in self._weights:
            weight.remove()

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def _places(network: nn.Module, mask: Mask) -> dict[tuple[nn.Module, str], tuple[nn.Parameter, Tensor]]:
    """Every layer that has a parameter of the mask, by whatever name, and which of its weights are kept."""
    within = _within_wrappers(network)
    plain: dict[str, nn.Parameter] = {}
    owners: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)
    for path, layer in network.named_modules(remove_duplicate=False):
        for own, parameter in layer.named_parameters(recurse=False, remove_duplicate=False):
            plain[_plain(f"{path}.{own}" if path else own, within)] = parameter
            owners[id(parameter)].append((layer, own))
    exact = dict(network.named_parameters(remove_duplicate=False))
    places = {}
    for name, kept in mask.items():
        parameter = exact[name] if name in exact else _find(name, plain)
        if parameter.shape != kept.shape:
            raise misfit(name, kept, parameter)
        places.update(dict.fromkeys(owners[id(parameter)], (parameter, kept)))
    return places


def _find(name: str, plain: dict[str, nn.Parameter]) -> nn.Parameter:
    """By its name without wrappers; the mask may be one of the wrapped network."""
    parts = [part for part in name.split(".") if part not in _WRAPPERS.values()]
    for known in (name, ".".join(parts)):
        if known in plain:
            return plain[known]
    if f"{name}_orig" in plain:
        raise InputError(
            f"mask: {name} is pruned by torch.nn.utils.prune; tombola.pruning.torch_prune.absorb makes it plain"
        )
    raise unknown("parameter in the mask", name, plain)


def _within_wrappers(network: nn.Module) -> set[str]:
    """The paths of what is within a wrapper."""
    return {
        f"{path}.{_WRAPPERS[base.__name__]}" if path else _WRAPPERS[base.__name__]
        for path, layer in network.named_modules(remove_duplicate=False)
        for base in type(layer).__mro__
        if base.__name__ in _WRAPPERS
    }


def _plain(name: str, within: set[str]) -> str:
    """A parameter's name as it is without wrappers."""
    parts = name.split(".")
    return ".".join(part for index, part in enumerate(parts) if ".".join(parts[: index + 1]) not in within)
