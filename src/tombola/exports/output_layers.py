"""Which layers give the outputs of a network, as far as that can be known without an example."""

from __future__ import annotations

from torch import fx, nn

from tombola.exports.benchmark import weighted_layers
from tombola.pruning.network_copy import copy_network


def output_layers(network: nn.Module) -> list[str]:
    """The names of the linear and convolutional layers that no other layer reads, from a trace of the forward pass.

    Of a network that cannot be traced, the last layer in the order of their definition.
    """
    layers = weighted_layers(network)
    if "" in layers:  # torch would trace into it
        return [""]
    try:
        graph = fx.Tracer().trace(copy_network(network).eval())
    except Exception:  # noqa: BLE001 - tracing may raise anything
        return list(layers)[-1:]
    found: dict[str, None] = {}
    seen, stack = set(), [node for node in graph.nodes if node.op == "output"]
    while stack:
        node = stack.pop()
        if node.op == "call_module" and any(
            name == node.target or name.startswith(f"{node.target}.") for name in layers
        ):
            found |= {str(node.target): None} if node.target in layers else {}
        elif node not in seen:
            seen.add(node)
            stack += node.all_input_nodes
    return list(found)
