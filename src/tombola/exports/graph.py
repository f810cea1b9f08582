"""Graph: what a network computes, step by step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from tombola.exports.op_rules import Computed, Pooling, Seen, Value, of_function, of_module
from tombola.utils.text import first_line
from tombola.zoo.models.resnet import Subsample

KINDS = (
    "input", "linear", "conv", "norm", "pointwise", "identity", "max-pool", "average-pool", "add", "flatten",
    "concatenate", "unflatten", "subsample", "output", "other",
)  # fmt: skip
"""What a step can be. `other` is whatever has no word of its own."""


class Untraceable(Exception):
    """The steps of a network cannot be seen: they depend on the numbers in its tensors, say. One line says why."""


@dataclass(frozen=True)
class Step:
    """One step: a tensor, and how it is computed in evaluation mode.

    - `input`: the examples. `output`: what the network returns, always the last step.
    - `linear`, `conv`, `norm`: an `nn.Linear` over the last axis, `nn.Conv2d`, `nn.BatchNorm1d` or `nn.BatchNorm2d`
      with running statistics.
    - `pointwise`: `function` of every number by itself. `identity`: the same tensor (dropout).
    - `max-pool`, `average-pool`: of images, as `options` say. A mean over all pixels may have lost the two axes.
    - `add`: two tensors of one shape. `concatenate`: along axis 1.
    - `flatten`: (N, ...) to (N, all). `unflatten`: (N, H, W) to (N, 1, H, W). `subsample`: see
      `tombola.zoo.models.resnet.Subsample`.
    - `other`: anything else, a constant of the network's too. Its `inputs` are all tensors that it may depend on.
    """

    name: str
    """Unique: the module's path or the function's name."""
    kind: str
    """One of `KINDS`."""
    inputs: tuple[int, ...]
    """The indices of the steps it reads, in the order of its arguments."""
    shape: tuple[int, ...]
    """Of its tensor for the example, batch first; () for an output of several tensors."""
    module: nn.Module | None = None
    path: str = ""
    """The module's, as in `named_modules`."""
    function: Callable[[Tensor], Tensor] | None = None
    """Of a `pointwise` step; `torch.relu` for every way to write a ReLU. Does not change its argument."""
    options: Pooling | None = None
    fixed: bool = False
    """Its sizes cannot change: the module is used more than once, or shares parameters, or the network's code writes
    them down."""


def graph_of(network: nn.Module, example: Tensor) -> list[Step]:
    """The steps of `network` in evaluation mode, in the order they are computed; steps of no effect included.

    `example` is a batch of inputs on the CPU, of any size. The steps' modules are the network's own. Steps that give
    numbers instead of tensors, such as sizes, are left out. What is changed in place counts as new from then on.
    Raises `Untraceable`.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        root = _Whole(network)
        reader = _Reader(root, _Tracer().trace(root))
        with torch.inference_mode(False), torch.no_grad():  # inference tensors do not count their changes
            reader.run(example.clone())
    except Untraceable:
        raise
    except Exception as error:  # tracing and modules raise all kinds
        raise Untraceable(first_line(error)) from error
    finally:
        for module, training in modes.items():
            module.training = training
    return reader.steps


def hooked(module: nn.Module) -> bool:
    """Whether more happens when `module` is called than its class says."""
    return bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in vars(module)


class _Whole(nn.Module):
    """A network and nothing else, so that it may be a single layer, or have hooks or optional arguments."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        return self.network(x)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Subsample) or hooked(m) or super().is_leaf_module(m, module_qualified_name)


class _Reader(fx.Interpreter):
    """Runs the graph on an example, and notes the steps."""

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        super().__init__(root, graph=graph)
        self.extra_traceback = False  # errors as the network raises them
        self.steps: list[Step] = []
        self._order = {node: index for index, node in enumerate(graph.nodes)}
        self._leads: dict[fx.Node, tuple[int, ...]] = {}  # the step of a tensor; of all else, those it depends on
        self._calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
        named = [*root.named_parameters(remove_duplicate=False), *root.named_buffers(remove_duplicate=False)]
        self._uses = Counter(id(tensor) for _, tensor in named)  # by how many names or reads a tensor goes
        read = {node.target for node in graph.nodes if node.op == "get_attr"}
        self._uses.update(id(tensor) for name, tensor in named if name in read)

    def run_node(self, n: fx.Node) -> Any:
        versions = {node: value._version for node, value in self.env.items() if isinstance(value, Tensor)}
        result = super().run_node(n)
        self._leads[n] = tuple(dict.fromkeys(lead for node in n.all_input_nodes for lead in self._leads[node]))
        if n.op == "output" or isinstance(result, Tensor):
            self.steps.append(self._step(n, result))
            self._leads[n] = (len(self.steps) - 1,)
        for node, version in versions.items():
            if self.env[node]._version != version and any(self._order[u] > self._order[n] for u in node.users):
                if not isinstance(result, Tensor) or not _same(self.env[node], result):
                    raise Untraceable(f"{n.name} changes a tensor in place that is read later as something else")
                self._leads[node] = self._leads[n]
        return result

    def _step(self, node: fx.Node, result: Any) -> Step:
        shape = tuple(result.shape) if isinstance(result, Tensor) else ()
        module, path, name = None, "", node.name
        if node.op in ("call_module", "get_attr"):
            name = str(node.target).removeprefix("network").removeprefix(".") or name
        if node.op == "call_module":
            module, path = self.fetch_attr(str(node.target)), name
        while any(step.name == name for step in self.steps):
            name += "_"
        seen = self._seen(node, module)
        if seen is None or (seen.kind in ("pointwise", "identity") and not _alike(seen.reads[0], result)):
            kind = {"placeholder": "input", "output": "output"}.get(node.op, "other")
            return Step(name, kind, self._leads[node], shape, module, path)
        fixed = seen.fixed or (module is not None and self._shared(str(node.target), module))
        reads = tuple(value.index for value in seen.reads)
        return Step(name, seen.kind, reads, shape, module, path, seen.function, seen.options, fixed)

    def _seen(self, node: fx.Node, module: nn.Module | None) -> Seen | None:
        arguments = fx.node.map_arg(node.args, self._argument)
        options = fx.node.map_arg(node.kwargs, self._argument)
        if module is not None:
            return None if hooked(module) else of_module(module, arguments, options)
        if node.op in ("call_function", "call_method"):
            literal = all(isinstance(self.env[one], Tensor) for one in node.all_input_nodes)
            return of_function(node.target, arguments, options, literal)
        return None

    def _argument(self, node: fx.Node) -> Any:
        value = self.env[node]
        if isinstance(value, Tensor):
            return Value(self._leads[node][0], tuple(value.shape), value.dtype)
        return Computed(value) if type(value) is int else value

    def _shared(self, target: str, module: nn.Module) -> bool:
        tensors = [*module.parameters(), *module.buffers()]
        sized = bool(tensors) or isinstance(module, Subsample)
        return sized and (self._calls[target] > 1 or any(self._uses[id(tensor)] > 1 for tensor in tensors))


def _alike(before: Value, after: Tensor) -> bool:
    return before.shape == tuple(after.shape) and before.dtype == after.dtype


def _same(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()
