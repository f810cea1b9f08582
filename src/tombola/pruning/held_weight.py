"""HeldWeight: keeps the pruned entries of one parameter of one layer at zero."""

from __future__ import annotations

import copy
import functools
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from tombola.pruning.bitmask import Bitmask
from tombola.pruning.mask import Mask
from tombola.utils.errors import InputError


class HeldWeight:
    """Keeps the pruned entries of one parameter at zero. As one of the layer's `load_state_dict` hooks it is copied
    and pickled with the layer. `ZeroBeforeUse` calls it before forward passes.

    It keeps neither the layer nor the parameter alive. It has no weak reference to the parameter, because
    `torch.utils.swap_tensors` refuses those.
    """

    def __init__(
        self, layer: nn.Module, name: str, kept: Tensor, parameter: Tensor | None, path: str | None = None
    ) -> None:
        """`name` is the parameter's name in the layer; `path` that in the network, for error messages."""
        self._layer = weakref.ref(layer)
        self.name = name
        self.kept = kept
        self.path = path or name
        self._bitmask = Bitmask(kept)
        self._handle: RemovableHandle | None = None
        self._attached: int | None = None  # the id of the parameter
        self._hook: weakref.ref[_ZeroGradient] | None = None  # the hook on its gradient, which goes with it
        self._replaced = False  # did the latest forward pass use another tensor?
        self._last_zeroed = _LastZeroed()
        self._passed: tuple[bool, bool] | None = None  # the latest forward pass: in training mode? with gradients?
        self._used = False
        """Whether the latest forward pass used the parameter, rather than a tensor in its place as `functional_call`
        puts there; False if there was none, or all were compiled."""
        if not kept.all():
            _register_optimizer_hooks()
            _held_weights[id(self)] = self
            if parameter is not None:
                self.attach(parameter)

    @property
    def parameter(self) -> Tensor | None:
        """The parameter of this name now; None if the layer, or its parameter, is gone."""
        layer = self._layer()
        return None if layer is None else layer._parameters.get(self.name)

    def attach(self, parameter: Tensor) -> None:
        """From now on prune this parameter instead of the former one. Raises `InputError` if its shape differs."""
        if parameter.shape != self.kept.shape:
            raise shape_error(self.name, self.kept, parameter)
        if self._attached != id(parameter):
            self._attached, self._last_zeroed = id(parameter), _last_zeroed.setdefault(id(parameter), _LastZeroed())
            self._last_zeroed.version, self._replaced = None, False
        if id(parameter) not in _gradient_hooks and parameter.requires_grad:  # another layer may share it
            if self._handle is not None:
                self._handle.remove()
            hook = _ZeroGradient(self)
            self._handle = parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
            _gradient_hooks[id(parameter)] = hook
        registered = _gradient_hooks.get(id(parameter))
        self._hook = None if registered is None else weakref.ref(registered)

    def zero(self, parameter: Tensor) -> None:
        """Set the pruned entries of the parameter to zero."""
        self._bitmask.zero(parameter)
        self._last_zeroed.set(parameter)

    def after_step(self, parameter: Tensor) -> None:
        """Set the pruned entries to zero after the step of an optimizer."""
        self.zero(parameter)
        self._last_zeroed.revived_unseen = 0

    def zero_gradient(self, parameter: Tensor) -> None:
        """Set the pruned entries of the parameter's gradient to zero."""
        if parameter.grad is not None:
            self._bitmask.zero(parameter.grad)

    def before_use(self) -> None:
        """Set the pruned entries to zero if PyTorch has counted a change of the parameter since they were. Called
        before each forward pass that may use the parameter. The first pass in evaluation mode, and the first without
        gradients there, also look at the values, which waits for a GPU: again after each pass of another kind. Raises
        `InputError` if a pruned weight is not zero there."""
        layer, parameter = self._layer(), self.parameter
        self._zero_if_changed()
        self._used = self._is_attached(parameter)
        if layer is None or parameter is None:
            return
        passed, self._passed = self._passed, (layer.training, torch.is_grad_enabled())
        if not layer.training and passed != self._passed:
            self.check()

    def check(self) -> None:
        """Raises `InputError` if a pruned weight is not zero although PyTorch has counted no change."""
        parameter = self.parameter
        if not self.active or not isinstance(parameter, nn.Parameter):  # a tensor given to `functional_call`
            return
        self._zero_if_changed()
        if revived := self.revived:
            raise revived_error(self.path, revived)

    @property
    def revived(self) -> int:
        """How many pruned weights are not zero now; of a sharded parameter, in this process."""
        parameter = self.parameter
        if parameter is None or parameter.is_meta or parameter.shape != self.kept.shape:
            return 0
        return self._bitmask.count_revived(parameter)

    @property
    def revived_unseen(self) -> int:
        """How many pruned weights were not zero, now or since the latest step of an optimizer, after changes that no
        forward pass has preceded: others, compiled or with other tensors, may have used them."""
        return self._last_zeroed.revived_unseen or (0 if self._used else self.revived)

    def _note_revived(self) -> None:
        if not self._used:
            self._last_zeroed.revived_unseen = max(self._last_zeroed.revived_unseen, self.revived)

    def _zero_if_changed(self) -> None:
        parameter = self.parameter
        if parameter is None or not self._is_attached(parameter):
            return
        if _version(parameter) != self._last_zeroed.version:
            self._note_revived()
            self.zero(parameter)

    def _is_attached(self, parameter: Tensor | None) -> bool:
        """Whether this is the parameter that is pruned. Once another has replaced it and been used by a forward pass,
        a third one that happens to have its id is not."""
        attached = parameter is not None and id(parameter) == self._attached
        gone = self._hook is not None and self._hook() is None
        if gone and (self._replaced or not attached):
            self._attached = None
            return False
        self._replaced = not attached
        return attached

    @property
    def active(self) -> bool:
        """Whether it prunes anything, and has not been removed."""
        return id(self) in _held_weights

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
        self._attached = None
        _held_weights.pop(id(self), None)

    def __call__(self, layer: nn.Module, _: object) -> None:
        """The hook after `load_state_dict`, which may have loaded pruned weights, or replaced the parameter."""
        parameter = layer._parameters.get(self.name)
        if parameter is not None and self.active:
            self.attach(parameter)
            self._note_revived()
            self.zero(parameter)

    def __deepcopy__(self, memo: dict[int, Any]) -> HeldWeight:
        # The layer is being copied now: `memo` has the copy, which has no attributes yet.
        layer = copy.deepcopy(self._layer(), memo)
        assert layer is not None, "the layer owns this hook"
        return HeldWeight(layer, self.name, self.kept, copy.deepcopy(self.parameter, memo), self.path)

    def __reduce__(self) -> tuple[object, ...]:
        return _unpickle, (self._layer(), self.name, Mask({self.name: self.kept}), self.parameter, self.path)


def _unpickle(
    layer: nn.Module, name: str, mask: Mask, parameter: Tensor | None, path: str | None = None
) -> HeldWeight:
    return HeldWeight(layer, name, mask[name], parameter, path)


def held_weights(layer: nn.Module) -> list[HeldWeight]:
    """The held weights of a layer, without those of its submodules."""
    return [hook for hook in _hooks(layer).values() if isinstance(hook, HeldWeight)]


def held_weight(network: nn.Module, name: str) -> HeldWeight | None:
    """The `HeldWeight` of the parameter of this name; None if it is not held."""
    path, _, attribute = name.rpartition(".")
    return _hooks(network.get_submodule(path)).get(_key(attribute))


def revived_error(name: str, revived: int) -> InputError:
    """The error for pruned weights of this parameter that are not zero."""
    return InputError(
        f"{name}: {revived:,} pruned weights are not zero: PyTorch does not count changes such as `p.data -= ...`, "
        "`p.data.copy_(...)` or a new parameter; change parameters in place under torch.no_grad(), as by `p -= ...`"
    )


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
        self.weight.zero_gradient(parameter)


class _LastZeroed:
    """The `_version` of a parameter when its pruned entries were last set to zero. Layers that share the parameter
    share this too: were each to set it to zero again, a backward pass would find it changed."""

    version: object = None
    revived_unseen = 0
    """See `HeldWeight.revived_unseen`."""
    _storage: StorageWeakRef | None = None

    def set(self, parameter: Tensor) -> None:
        """The pruned entries are zero now."""
        if torch.compiler.is_compiling():  # a traced object has no weak references: zero it again before use
            self.version = None
            return
        self.version = _version(parameter)
        storage = parameter.untyped_storage()
        if self._storage is None or self._storage.cdata != storage._cdata:
            # While there is this reference no other storage gets the id, which is part of the version.
            self._storage = StorageWeakRef(storage)  # type: ignore[no-untyped-call]


def _version(parameter: Tensor) -> object:
    """Differs after each change that PyTorch counts, and after one of the storage, as by `parameter.data = ...`."""
    try:
        return parameter._version, parameter.data_ptr(), parameter.untyped_storage()._cdata
    except RuntimeError:  # changes of inference tensors are not counted
        return None


_held_weights: weakref.WeakValueDictionary[int, HeldWeight] = weakref.WeakValueDictionary()  # by id; those that prune
_last_zeroed: weakref.WeakValueDictionary[int, _LastZeroed] = weakref.WeakValueDictionary()  # by id(parameter)
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
            weight.zero_gradient(parameter)


def _after_step(optimizer: Optimizer, *_: object) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            hook = _gradient_hooks.get(id(parameter))
            if hook is not None:
                hook.weight.after_step(parameter)
