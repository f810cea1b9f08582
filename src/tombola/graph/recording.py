"""Recording: the operations that a network performs on an example."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from tombola.utils.model_inputs import Inputs, call, tensors
from tombola.utils.random_state import seeded

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorIndex:
    """Stands for a tensor among the arguments of an operation."""

    index: int
    """In `Graph.shapes`."""


@dataclass(frozen=True)
class Operation:
    """A call of an ATen operator, such as `aten.convolution.default`."""

    function: Any
    """A `torch._ops.OpOverload`."""
    arguments: tuple[Any, ...]
    """In the order of the operator's schema, with a `TensorIndex` for each tensor."""
    options: dict[str, Any]
    outputs: tuple[int | None, ...]
    """The index of each tensor that it returns; None for what is no tensor."""
    module: str
    """The name, as in `named_modules`, of the innermost module whose forward pass performs it."""

    @property
    def name(self) -> str:
        """Such as "aten.convolution"."""
        return str(self.function.overloadpacket)

    @property
    def inputs(self) -> list[int]:
        """The indices of the tensors among its arguments, in their order."""
        leaves = pytree.tree_leaves((self.arguments, self.options))
        return [leaf.index for leaf in leaves if isinstance(leaf, TensorIndex)]

    @property
    def label(self) -> str:
        """For messages, such as "view in encoder.0"."""
        name = self.name.removeprefix("aten.").strip("_")
        return f"{name} in {self.module}" if self.module else name


@dataclass
class Graph:
    """The operations of a forward pass in their order, on tensors that are numbered."""

    operations: list[Operation] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)
    """By tensor."""
    names: dict[int, str] = field(default_factory=dict)
    """The tensors that are parameters and buffers -> their names; of tied ones, the first."""
    inputs: list[int] = field(default_factory=list)
    external: set[int] = field(default_factory=set)
    """Tensors that are neither inputs, parameters or buffers, nor computed: constants in a module's attributes."""
    outputs: list[int] = field(default_factory=list)

    @cached_property
    def needed(self) -> frozenset[int]:
        """The operations that the outputs depend on, and those that return no tensor, by their places. Attention
        weights, for example, are often computed and not read."""
        read, found = {*self.outputs}, set()
        for position in reversed(range(len(self.operations))):
            operation = self.operations[position]
            made = {index for index in operation.outputs if index is not None}
            if not made or made & read:
                found.add(position)
                read.update(operation.inputs)
        return frozenset(found)


def record(network: nn.Module, example: Inputs) -> Graph:
    """What `network` does on `example`, a batch of inputs on its device.

    The network is run as it is, so it should be a copy in evaluation mode. Below autograd, where operations are
    recorded, forward passes are made of some two hundred operators, whatever Python code calls them: decorators,
    keyword arguments, loops and conditions do not matter; but only the branches that the example takes are recorded.
    Raises what the network raises; the operations before are in the `graph` of a `Recorder`.
    """
    recorder = Recorder(network, example)
    recorder.run()
    return recorder.graph


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the operations of a network."""

    def __init__(self, network: nn.Module, example: Inputs) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = Graph()
        self._network, self._example = network, example
        self._indices: dict[int, int] = {}
        self._alive: list[Tensor] = []  # so that no other tensor gets the id of one that was recorded
        self._modules: list[str] = []
        self._views: dict[int, list[Tensor]] = {}
        """By the address of their memory."""
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            self.graph.names[self._add(tensor)] = name
        self.graph.inputs = [self._add(tensor) for tensor in tensors(example)]

    def run(self) -> None:
        """Run the network."""
        with ExitStack() as stack:
            stack.enter_context(seeded(0))
            stack.enter_context(torch.inference_mode(False))
            # With gradients, torch's modules do not call fused kernels for inference, which no rule could look into.
            stack.enter_context(torch.enable_grad())
            stack.enter_context(_gradients_required(self._network))
            stack.enter_context(self._tracked_modules())
            with self:
                outputs = call(self._network, self._example)
        self.graph.outputs = [self._indices[id(tensor)] for tensor in tensors(outputs) if id(tensor) in self._indices]

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        arguments, options = pytree.tree_map_only(Tensor, self._reference, (args, kwargs))
        layout = _layout(args[0]) if func.overloadpacket in _STRIDED else None
        result = func(*args, **kwargs)
        changed = [args[i] for i, each in enumerate(func._schema.arguments[: len(args)]) if _is_written(each)]
        leaves = pytree.tree_leaves(result)
        outputs = tuple(self._add(leaf) if isinstance(leaf, Tensor) else None for leaf in leaves)
        module = self._modules[-1] if self._modules else ""
        if layout is not None and layout == _layout(result):
            func, arguments = torch.ops.aten.alias.default, arguments[:1]
        self.graph.operations.append(Operation(func, tuple(arguments), options, outputs, module))
        for tensor in changed:
            if isinstance(tensor, Tensor):
                self._change_views(tensor, module)
        return result

    def _add(self, tensor: Tensor) -> int:
        """Number a tensor, anew if an operation has changed it."""
        index = len(self.graph.shapes)
        self.graph.shapes.append(tuple(tensor.shape))
        if id(tensor) not in self._indices:
            self._alive.append(tensor)
            self._views.setdefault(_memory(tensor), []).append(tensor)
        self._indices[id(tensor)] = index
        return index

    def _reference(self, tensor: Tensor) -> TensorIndex:
        if id(tensor) not in self._indices:
            self.graph.external.add(self._add(tensor))
        return TensorIndex(self._indices[id(tensor)])

    def _change_views(self, changed: Tensor, module: str) -> None:
        """After an operation in place: other tensors of the same memory have changed with it."""
        new = self._indices[id(changed)]
        for view in self._views.get(_memory(changed), []):
            if view is changed:
                continue
            if _layout(view) == _layout(changed):
                self._indices[id(view)] = new
                continue
            whole = view.is_contiguous() and view.storage_offset() == 0
            # What is only a part, too, may have changed; how, no rule knows.
            function = torch.ops.aten.as_strided_scatter if whole else torch.ops.aten.slice_scatter
            place = (list(changed.shape), list(changed.stride()), changed.storage_offset())
            arguments = (TensorIndex(self._indices[id(view)]), TensorIndex(new), *place)
            self.graph.operations.append(Operation(function.default, arguments, {}, (self._add(view),), module))

    @contextmanager
    def _tracked_modules(self) -> Iterator[None]:
        """Within it, `_modules` are the modules whose forward passes are running, by name."""
        handles = []
        for name, module in self._network.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                enter, leave = self._hooks(name)
                handles += [
                    module.register_forward_pre_hook(enter),
                    module.register_forward_hook(leave, always_call=True),
                ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hooks(self, name: str) -> tuple[Callable[..., None], Callable[..., None]]:
        def enter(*_: Any) -> None:
            self._modules.append(name)

        def leave(*_: Any) -> None:
            if self._modules:
                self._modules.pop()

        return enter, leave


@contextmanager
def _gradients_required(network: nn.Module) -> Iterator[None]:
    frozen = [p for p in network.parameters() if not p.requires_grad and p.is_floating_point()]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _memory(tensor: Tensor) -> int:
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse tensors have no storage
        return -id(tensor)


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    """Which elements of its memory a tensor has; strides along axes of size 1 do not matter."""
    strides = [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size != 1]
    return tuple(tensor.shape), strides, tensor.storage_offset()


_STRIDED = (torch.ops.aten.as_strided, torch.ops.aten.as_strided_)
