"""Output layers: those that compute what a network returns, found by following the flow of data."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from tombola.pruning.layers import Layer
from tombola.utils.errors import InputError
from tombola.utils.text import first_line

_PRODUCTS: set[Callable[..., Any] | str] = {
    functional.linear, functional.bilinear, functional.conv1d, functional.conv2d, functional.conv3d,
    functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d,
    torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.einsum, torch.tensordot, operator.matmul,
    "matmul", "mm", "bmm", "addmm", "baddbmm",
}  # fmt: skip
"""Functions, and methods by name, that multiply a tensor by a matrix: what they return has units of their own."""


def trace_output_layers(network: nn.Module, layers: Sequence[Layer]) -> frozenset[str]:
    """The names of the `layers` from which data flows to what `network` returns without passing another layer.

    Their units are outputs of the network: logits, actions, values. Where several are added up, as in a residual
    stream, they all are output layers. Raises `InputError` if the network cannot be traced.
    """
    by_parameter: dict[int, list[str]] = {}
    for layer in layers:
        parameter = layer.module._parameters[layer.attribute]
        by_parameter.setdefault(id(parameter), []).append(layer.name)
    tracer = _Tracer()
    try:
        if tracer.is_leaf_module(network, ""):
            found = frozenset(_Flow(network, by_parameter).of_module(network)[0])
        else:
            found = frozenset(_Flow(network, by_parameter).output_layers(tracer.trace(network)))
    except _Untraceable as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 - a user's module may raise anything on symbolic tensors
        wrapped = "co_varnames" in str(error)  # as of Hugging Face's models
        reason = "its forward pass is decorated" if wrapped else first_line(error)
    else:
        return found
    raise InputError(f"outputs: the output layers cannot be found by tracing ({reason}): name them, outputs=[...]")


class _Untraceable(Exception):
    pass


class _Tracer(fx.Tracer):
    """Records modules that cannot be traced as single steps."""

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:  # noqa: BLE001 - the steps recorded so far lead nowhere
            return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)


class _Flow:
    """Follows what a network computes from its output back to the layers."""

    def __init__(self, network: nn.Module, by_parameter: dict[int, list[str]]) -> None:
        self._network = network
        self._by_parameter = by_parameter

    def output_layers(self, graph: fx.Graph) -> Iterator[str]:
        pending = [node for node in graph.nodes if node.op == "output"]
        seen = set()
        while pending:
            node = pending.pop()
            if node in seen:
                continue
            seen.add(node)
            found, sources = self._sources(node)
            yield from found
            pending += sources

    def _sources(self, node: fx.Node) -> tuple[list[str], list[fx.Node]]:
        """The layers that compute this node, and the nodes from which it has units otherwise."""
        if node.op == "call_module":
            found, passes = self.of_module(self._network.get_submodule(str(node.target)))
            return found, node.all_input_nodes if passes else []
        if node.op == "get_attr":
            return self._layers_of(operator.attrgetter(str(node.target))(self._network)), []
        if node.op in ("call_function", "call_method") and node.target in _PRODUCTS:
            matrices = [source for source in node.all_input_nodes if self._is_constant(source)]
            if matrices:
                return [], matrices
        return [], node.all_input_nodes

    def of_module(self, module: nn.Module) -> tuple[list[str], bool]:
        """The layers of a module that compute its output, and whether units of its inputs are units of its output."""
        match module:
            case nn.Transformer():
                return self.of_module(module.decoder)
            case nn.TransformerEncoder() | nn.TransformerDecoder():
                return [name for layer in module.layers for name in self.of_module(layer)[0]], True
            case nn.TransformerEncoderLayer():
                return self._inside(module.self_attn.out_proj, module.linear2), True
            case nn.TransformerDecoderLayer():
                added = (module.self_attn.out_proj, module.multihead_attn.out_proj, module.linear2)
                return self._inside(*added), True
            case nn.MultiheadAttention():
                return self._inside(module.out_proj), False
        found = self._inside(module)
        own = [name for parameter in module._parameters.values() for name in self._layers_of(parameter)]
        if len(found) > len(own):
            raise _Untraceable(f"{type(module).__name__} cannot be followed")
        return found, not found

    def _inside(self, *modules: nn.Module) -> list[str]:
        parameters = (parameter for module in modules for parameter in module.parameters())
        return [name for parameter in parameters for name in self._layers_of(parameter)]

    def _layers_of(self, parameter: object) -> list[str]:
        return self._by_parameter.get(id(parameter), [])

    def _is_constant(self, node: fx.Node) -> bool:
        """Whether it depends on parameters alone."""
        return node.op == "get_attr" or (
            node.op in ("call_function", "call_method")
            and bool(node.all_input_nodes)
            and all(map(self._is_constant, node.all_input_nodes))
        )
