"""HeldWeight: keeps the pruned entries of one parameter of one layer at zero."""

from __future__ import annotations

import copy
import functools
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from tombola.pruning.mask import Mask
from tombola.utils.errors import InputError

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class HeldWeight:
    """Keeps the pruned entries of one parameter at zero. As one of the layer's `load_state_dict` hooks it is copied
    and pickled with the layer, and is invisible to `torch.compile`.

    It keeps neither the layer nor the parameter alive. It has no weak reference to the parameter, because
    `torch.utils.swap_tensors` refuses those.
    """

    def __init__(self, layer: nn.Module, name: str, kept: Tensor, parameter: Tensor | None) -> None:
        self._layer = weakref.ref(layer)
        self.name = name
        self.kept = kept
        self._handle: RemovableHandle | None = None
        self._bitmask: Tensor | None = None
        self._bitmask_key: object = None
        if not kept.all():
            _register_optimizer_hooks()
            _held_weights[id(self)] = self
            if parameter is not None:
                self.attach(parameter)

    @property
    def parameter(self) -> Tensor | None:
        layer = self._layer()
        return None if layer is None else layer._parameters.get(self.name)

    def attach(self, parameter: Tensor) -> None:
        """From now on prune this parameter instead of the former one. Raises `InputError` if its shape differs."""
        if parameter.shape != self.kept.shape:
            raise shape_error(self.name, self.kept, parameter)
        if id(parameter) in _gradient_hooks or not parameter.requires_grad:  # another layer may share it
            return
        if self._handle is not None:
            self._handle.remove()
        hook = _ZeroGradient(self)
        self._handle = parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
        _gradient_hooks[id(parameter)] = hook

    @torch.no_grad()
    def zero(self, tensor: Tensor) -> None:
        """Set the pruned entries of the parameter, or of its gradient, to zero, including infinity and NaN."""
        shard: Any = tensor if hasattr(tensor, "to_local") else None
        local: Tensor = tensor if shard is None else shard.to_local()
        key = (tensor.device, tensor.dtype, shard is not None and (shard.device_mesh, shard.placements))
        if self._bitmask is None or self._bitmask_key != key:
            self._bitmask, self._bitmask_key = self._bitmask_like(local, shard), key
        # A product would keep NaN, and masked_fill_ takes ten times as long on a CPU.
        local.view(self._bitmask.dtype).bitwise_and_(self._bitmask)

    def _bitmask_like(self, local: Tensor, shard: Any) -> Tensor:
        """Integers of the width, device and memory layout of `local`: all bits set where a weight is kept, else 0."""
        bits = -self.kept.to(_INTEGERS[local.element_size()]).to(local.device)
        if shard is not None:  # every process has the whole mask and takes its part, without communication
            whole = type(shard).from_local(bits, shard.device_mesh, run_check=False)
            bits = whole.redistribute(shard.device_mesh, shard.placements).to_local()
        return torch.empty_like(local, dtype=bits.dtype, requires_grad=False).copy_(bits)

    def register(self) -> None:
        """Add this hook to the layer."""
        layer = self._layer()
        if layer is not None:
            _hooks(layer)[_key(self.name)] = self

    def remove(self) -> None:
        """Remove the hooks from the layer and the parameter, unless another hold has replaced this one."""
        layer = self._layer()
        if layer is not None and held_weight(layer, self.name) is self:
            del _hooks(layer)[_key(self.name)]
        if self._handle is not None:
            self._handle.remove()
        _held_weights.pop(id(self), None)

    def __call__(self, layer: nn.Module, _: object) -> None:
        """The hook after `load_state_dict`, which may have loaded pruned weights, or replaced the parameter."""
        parameter = layer._parameters.get(self.name)
        if parameter is not None and id(self) in _held_weights:
            self.attach(parameter)
            self.zero(parameter)

    def __deepcopy__(self, memo: dict[int, Any]) -> HeldWeight:
        # The layer is being copied now: `memo` has the copy, which has no attributes yet.
        layer = copy.deepcopy(self._layer(), memo)
        assert layer is not None, "the layer owns this hook"
        return HeldWeight(layer, self.name, self.kept, copy.deepcopy(self.parameter, memo))

    def __reduce__(self) -> tuple[object, ...]:
        return _unpickle, (self._layer(), self.name, Mask({self.name: self.kept}), self.parameter)


def _unpickle(layer: nn.Module, name: str, mask: Mask, parameter: Tensor | None) -> HeldWeight:
    return HeldWeight(layer, name, mask[name], parameter)


def held_weight(network: nn.Module, name: str) -> HeldWeight | None:
    """The `HeldWeight` of the parameter of this name; None if it is not held."""
    path, _, attribute = name.rpartition(".")
    return _hooks(network.get_submodule(path)).get(_key(attribute))


def shape_error(name: str, kept: Tensor, parameter: Tensor) -> InputError:
    """The error for a mask whose shape differs from the parameter's."""
    return InputError(f"mask: {name} has shape {tuple(kept.shape)}, but {tuple(parameter.shape)} in the network")


def _hooks(layer: nn.Module) -> dict[Any, Any]:
    return layer._load_state_dict_post_hooks


def _key(name: str) -> str:
    # Not a key from torch: it counts keys per process, so an unpickled one could be used twice.
    return f"tombola.hold.{name}"


class _ZeroGradient:
    """The hook on a gradient; its entry in `_gradient_hooks` goes with the parameter, before the id can be reused."""

    def __init__(self, weight: HeldWeight) -> None:
        self.weight = weight

    def __call__(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self.weight.zero(parameter.grad)


_held_weights: weakref.WeakValueDictionary[int, HeldWeight] = weakref.WeakValueDictionary()  # by id; those that prune
_gradient_hooks: weakref.WeakValueDictionary[int, _ZeroGradient] = weakref.WeakValueDictionary()  # by id(parameter)


@functools.cache
def _register_optimizer_hooks() -> None:
    """Run the hooks below at each step of every optimizer, from now on."""
    register_optimizer_step_pre_hook(_before_step)
    register_optimizer_step_post_hook(_after_step)


def _before_step(optimizer: Optimizer, *_: object) -> None:
    """Attach to parameters that have replaced held ones, if this optimizer trains them."""
    weights = [weight for ref in _held_weights.valuerefs() if (weight := ref()) is not None]
    detached = [weight for weight in weights if id(weight.parameter) not in _gradient_hooks]
    if not detached:
        return
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for weight in detached:
        parameter = weight.parameter
        if parameter is not None and id(parameter) in trained:
            weight.attach(parameter)
            if parameter.grad is not None:
                weight.zero(parameter.grad)


def _after_step(optimizer: Optimizer, *_: object) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            hook = _gradient_hooks.get(id(parameter))
            if hook is not None:
                hook.weight.zero(parameter)
