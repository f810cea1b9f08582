"""Graph: what a network computes, step by step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from tombola.kernels.plans.op_match import DynamicInt, OpMatch, Pooling, TensorRef
from tombola.kernels.plans.op_rules import of_function, of_module
from tombola.utils.model_inputs import Inputs, arguments
from tombola.utils.module_hooks import has_forward_hooks
from tombola.utils.network_copy import copy_network
from tombola.utils.text import first_line
from tombola.zoo.models.resnet import Subsample


class TracingError(Exception):
    """The network cannot be traced: its steps depend on the values of tensors, for example. One line says why."""


@dataclass(frozen=True)
class Step:
    """One step: a tensor, and how it is computed in evaluation mode. Its kind is one of:

    - `input`: a tensor of the examples. `output`: what the network returns, always the last step.
    - `linear`, `conv`, `norm`: an `nn.Linear` over the last axis, `nn.Conv2d`, `nn.BatchNorm1d` or `nn.BatchNorm2d`
      with running statistics.
    - `pointwise`: `function` applied elementwise. `identity`: the same tensor (dropout).
    - `max-pool`, `average-pool`: of images, with `options`. A mean over all pixels may have dropped the two axes.
    - `add`: two tensors of one shape. `concatenate`: along axis 1.
    - `flatten`: (N, ...) to (N, all). `unflatten`: (N, H, W) to (N, 1, H, W). `subsample`: see
      `tombola.zoo.models.resnet.Subsample`.
    - `other`: anything else, constants too. Its `inputs` are all tensors that it may depend on.
    """

    name: str
    """Unique: the module's path or the function's name."""
    kind: str
    inputs: tuple[int, ...]
    """The indices of the steps whose tensors are its arguments, in their order."""
    shape: tuple[int, ...]
    """The shape of its tensor for the example, batch first; () for an output of several tensors."""
    module: nn.Module | None = None
    path: str = ""
    """The name of the module, as in `named_modules`."""
    function: Callable[[Tensor], Tensor] | None = None
    """Of a `pointwise` step; `torch.relu` for every kind of ReLU. Does not change its argument."""
    options: Pooling | None = None
    fixed: bool = False
    """Whether its sizes cannot change: its module is used more than once or shares parameters, or sizes are literals
    in the network's code."""


def graph_of(network: nn.Module, example: Inputs) -> list[Step]:
    """The steps of `network` in evaluation mode, in the order they are computed.

    `example` is a batch of inputs on the network's device, of any size. The steps' modules are the network's own, but
    a copy of it is run, because its forward pass may change it. Operations that return numbers are not steps. A
    tensor changed in place is the output of that step. Raises `TracingError`.
    """
    try:
        root = _Wrapper(copy_network(network).eval(), example)
        builder = _GraphBuilder(root, _Tracer().trace(root))
        with torch.inference_mode(False), torch.no_grad():  # inference tensors have no version counter
            builder.run(*(root.leaves[place].clone() for place in root.places))
    except TracingError:
        raise
    except Exception as error:  # tracing and modules may raise anything
        raise TracingError(first_line(error)) from error
    own = dict(network.named_modules(remove_duplicate=False))
    return [step if step.module is None else replace(step, module=own[step.path]) for step in builder.steps]


class _Wrapper(nn.Module):
    """A network as a submodule, so that it may be a single layer, or have hooks or optional arguments. It takes the
    tensors of the inputs one by one."""

    def __init__(self, network: nn.Module, example: Inputs) -> None:
        super().__init__()
        self.network = network
        self.leaves, self.spec = pytree.tree_flatten(arguments(example))

    @property
    def places(self) -> list[int]:
        """Which leaves of the arguments are tensors."""
        return [place for place, leaf in enumerate(self.leaves) if isinstance(leaf, Tensor)]

    def forward(self, *inputs: Any) -> Any:
        given = dict(zip(self.places, inputs, strict=True))
        leaves = [given.get(place, leaf) for place, leaf in enumerate(self.leaves)]
        positional, named = pytree.tree_unflatten(leaves, self.spec)
        return self.network(*positional, **named)


class _Tracer(fx.Tracer):
    def create_args_for_root(
        self,
        root_fn: Callable[..., Any],
        is_module: bool,  # noqa: ARG002
        concrete_args: Any = None,  # noqa: ARG002
    ) -> tuple[Callable[..., Any], list[Any]]:
        """One placeholder for each tensor; torch's own would be a single one for all of `*inputs`."""
        assert isinstance(self.root, _Wrapper)
        names = [f"x{number or ''}" for number in range(len(self.root.places))]
        return root_fn, [self.root, *(self.create_proxy("placeholder", name, (), {}) for name in names)]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Subsample) or has_forward_hooks(m) or super().is_leaf_module(m, module_qualified_name)


class _GraphBuilder(fx.Interpreter):
    """Runs the graph on an example, and records the steps."""

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        super().__init__(root, graph=graph)
        self.extra_traceback = False  # keep the network's own messages
        self.steps: list[Step] = []
        self._order = {node: index for index, node in enumerate(graph.nodes)}
        self._sources: dict[fx.Node, tuple[int, ...]] = {}
        """The step of a tensor; of other values, the steps they depend on."""
        self._calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
        named = [*root.named_parameters(remove_duplicate=False), *root.named_buffers(remove_duplicate=False)]
        self._uses = Counter(id(tensor) for _, tensor in named)  # the number of names and reads of a tensor
        read = {node.target for node in graph.nodes if node.op == "get_attr"}
        self._uses.update(id(tensor) for name, tensor in named if name in read)

    def run_node(self, n: fx.Node) -> Any:
        versions = {node: value._version for node, value in self.env.items() if isinstance(value, Tensor)}
        result = super().run_node(n)
        self._sources[n] = tuple(dict.fromkeys(step for node in n.all_input_nodes for step in self._sources[node]))
        if n.op == "output" or isinstance(result, Tensor):
            self.steps.append(self._step(n, result))
            self._sources[n] = (len(self.steps) - 1,)
        for node, version in versions.items():
            if self.env[node]._version != version and any(self._order[u] > self._order[n] for u in node.users):
                if not isinstance(result, Tensor) or not _same_memory(self.env[node], result):
                    raise TracingError(f"{n.name} changes a tensor in place that is used later")
                self._sources[node] = self._sources[n]
        return result

    def _step(self, node: fx.Node, result: Any) -> Step:
        shape = tuple(result.shape) if isinstance(result, Tensor) else ()
        module, path, name = None, "", node.name
        if node.op in ("call_module", "get_attr"):
            target = str(node.target).removeprefix("network").removeprefix(".")
            name = target or name
        if node.op == "call_module":
            module, path = self.fetch_attr(str(node.target)), target
        while any(step.name == name for step in self.steps):
            name += "_"
        match = self._match(node, module)
        if match is None or (match.kind in ("pointwise", "identity") and not _same_type(match.inputs[0], result)):
            kind = {"placeholder": "input", "output": "output"}.get(node.op, "other")
            return Step(name, kind, self._sources[node], shape, module, path)
        fixed = match.fixed or (module is not None and self._shared(str(node.target), module))
        inputs = tuple(value.index for value in match.inputs)
        return Step(name, match.kind, inputs, shape, module, path, match.function, match.options, fixed)

    def _match(self, node: fx.Node, module: nn.Module | None) -> OpMatch | None:
        arguments = fx.node.map_arg(node.args, self._argument)
        options = fx.node.map_arg(node.kwargs, self._argument)
        if module is not None:
            return None if has_forward_hooks(module) else of_module(module, arguments, options)
        if node.op in ("call_function", "call_method"):
            literal = all(isinstance(self.env[one], Tensor) for one in node.all_input_nodes)
            return of_function(node.target, arguments, options, literal)
        return None

    def _argument(self, node: fx.Node) -> Any:
        value = self.env[node]
        if isinstance(value, Tensor):
            return TensorRef(self._sources[node][0], tuple(value.shape), value.dtype)
        return DynamicInt(value) if type(value) is int else value

    def _shared(self, target: str, module: nn.Module) -> bool:
        tensors = [*module.parameters(), *module.buffers()]
        sized = bool(tensors) or isinstance(module, Subsample)
        return sized and (self._calls[target] > 1 or any(self._uses[id(tensor)] > 1 for tensor in tensors))


def _same_type(before: TensorRef, after: Tensor) -> bool:
    return before.shape == tuple(after.shape) and before.dtype == after.dtype


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()
