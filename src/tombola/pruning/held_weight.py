"""HeldWeight: one parameter of one layer, its pruned entries at zero through training, loading and copying."""

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
    """One parameter of one layer, held. It lies among the layer's `load_state_dict` hooks, and is called as one; so
    it is in the layer's `__dict__`, is copied and pickled with it, and not seen by `torch.compile`.

    It knows the layer weakly, and the parameter only through the layer, so that both go when they would without it;
    nor is there a weak reference to a parameter, because `torch.utils.swap_tensors` refuses those.
    """

    def __init__(self, layer: nn.Module, name: str, kept: Tensor, parameter: Tensor | None) -> None:
        self._layer = weakref.ref(layer)
        self.name = name
        self.kept = kept
        self._handle: RemovableHandle | None = None
        self._bits: Tensor | None = None
        self._bits_for: object = None
        if not kept.all():
            _watch()
            _held_weights[id(self)] = self
            if parameter is not None:
                self.attach(parameter)

    @property
    def parameter(self) -> Tensor | None:
        """The layer's parameter as of now."""
        layer = self._layer()
        return None if layer is None else layer._parameters.get(self.name)

    def attach(self, parameter: Tensor) -> None:
        """Zero this parameter's gradients and, after steps, its values; no longer those of the one before.

        Does nothing for a parameter that takes no gradient. Raises `InputError` where the mask does not fit.
        """
        if parameter.shape != self.kept.shape:
            raise misfit(self.name, self.kept, parameter)
        if id(parameter) in _attached or not parameter.requires_grad:  # another layer may share it
            return
        if self._handle is not None:
            self._handle.remove()
        hook = _ZeroGradient(self)
        self._handle = parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
        _attached[id(parameter)] = hook

    @torch.no_grad()
    def zero(self, tensor: Tensor) -> None:
        """Set the pruned entries of the parameter, or of its gradient, to zero; infinite ones and NaN too."""
        shard: Any = tensor if hasattr(tensor, "to_local") else None
        local: Tensor = tensor if shard is None else shard.to_local()
        made_for = (tensor.device, tensor.dtype, shard is not None and (shard.device_mesh, shard.placements))
        if self._bits is None or self._bits_for != made_for:
            self._bits, self._bits_for = self._bits_like(local, shard), made_for
        # Bits, because a product would keep NaN, and masked_fill_ takes ten times as long on a CPU.
        local.view(self._bits.dtype).bitwise_and_(self._bits)

    def _bits_like(self, local: Tensor, shard: Any) -> Tensor:
        """All bits set where a weight is kept, none elsewhere: integers as wide, placed and laid out as `local`."""
        bits = -self.kept.to(_INTEGERS[local.element_size()])
        bits = bits.to(local.device)
        if shard is not None:  # every process has the whole mask, so each takes its part and nothing is sent
            whole = type(shard).from_local(bits, shard.device_mesh, run_check=False)
            bits = whole.redistribute(shard.device_mesh, shard.placements).to_local()
        return torch.empty_like(local, dtype=bits.dtype, requires_grad=False).copy_(bits)

    def place(self) -> None:
        """Lie in the layer."""
        layer = self._layer()
        if layer is not None:
            _hooks(layer)[_key(self.name)] = self

    def remove(self) -> None:
        """Leave the layer and the parameter, where this is what holds them."""
        layer = self._layer()
        if layer is not None and held_weight(layer, self.name) is self:
            del _hooks(layer)[_key(self.name)]
        if self._handle is not None:
            self._handle.remove()
        _held_weights.pop(id(self), None)

    def __call__(self, layer: nn.Module, _: object) -> None:
        """After `load_state_dict`, which may have brought pruned weights, or another parameter."""
        parameter = layer._parameters.get(self.name)
        if parameter is not None and id(self) in _held_weights:
            self.attach(parameter)
            self.zero(parameter)

    def __deepcopy__(self, memo: dict[int, Any]) -> HeldWeight:
        # The layer is being copied just now: `memo` has the copy, which has no attributes yet.
        layer = copy.deepcopy(self._layer(), memo)
        assert layer is not None, "it lies in a layer"
        return HeldWeight(layer, self.name, self.kept, copy.deepcopy(self.parameter, memo))

    def __reduce__(self) -> tuple[object, ...]:
        return _unpickle, (self._layer(), self.name, Mask({self.name: self.kept}), self.parameter)


def _unpickle(layer: nn.Module, name: str, mask: Mask, parameter: Tensor | None) -> HeldWeight:
    return HeldWeight(layer, name, mask[name], parameter)


def held_weight(layer: nn.Module, name: str) -> HeldWeight | None:
    """What holds this parameter of `layer`, if anything does."""
    return _hooks(layer).get(_key(name))


def held_weights(layer: nn.Module) -> list[HeldWeight]:
    """What holds the parameters of `layer` itself."""
    return [hook for hook in _hooks(layer).values() if isinstance(hook, HeldWeight)]


def misfit(name: str, kept: Tensor, parameter: Tensor) -> InputError:
    """The error for a mask of another shape than the parameter."""
    return InputError(f"mask: {name} is {tuple(kept.shape)}, but in the network it is {tuple(parameter.shape)}")


def _hooks(layer: nn.Module) -> dict[Any, Any]:
    return layer._load_state_dict_post_hooks


def _key(name: str) -> str:
    # Ours, because torch's keys are counted in each process: one that was unpickled could be given a second time.
    return f"tombola.hold.{name}"


class _ZeroGradient:
    """The hook on a parameter's gradient. It belongs to the parameter alone: when that goes, so does its entry in
    `_attached`, and no other object is taken for it by its id."""

    def __init__(self, weight: HeldWeight) -> None:
        self.weight = weight

    def __call__(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self.weight.zero(parameter.grad)


_held_weights: weakref.WeakValueDictionary[int, HeldWeight] = weakref.WeakValueDictionary()  # by id; with any pruned
_attached: weakref.WeakValueDictionary[int, _ZeroGradient] = weakref.WeakValueDictionary()  # by id of the parameter


@functools.cache
def _watch() -> None:
    """Look at each step of every optimizer, from now on."""
    register_optimizer_step_pre_hook(_before_step)
    register_optimizer_step_post_hook(_after_step)


def _before_step(optimizer: Optimizer, *_: object) -> None:
    """Follow parameters that have been replaced, if this optimizer trains what they were replaced by."""
    weights = [weight for ref in _held_weights.valuerefs() if (weight := ref()) is not None]
    lost = [weight for weight in weights if id(weight.parameter) not in _attached]
    if not lost:
        return
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for weight in lost:
        parameter = weight.parameter
        if parameter is not None and id(parameter) in trained:
            weight.attach(parameter)
            if parameter.grad is not None:
                weight.zero(parameter.grad)


def _after_step(optimizer: Optimizer, *_: object) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            hook = _attached.get(id(parameter))
            if hook is not None:
                hook.weight.zero(parameter)
