"""Multiply-adds: how often the weights of a network are multiplied."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tombola.graph.recording import Graph, Operation, TensorIndex

_PRODUCTS = {"aten.mm": (0, 1), "aten.bmm": (0, 1), "aten.addmm": (1, 2), "aten.baddbmm": (1, 2), "aten.mv": (0, 1)}
"""Products of matrices, and the positions of the factors among their arguments."""

_RECURRENT = frozenset({"aten.mkldnn_rnn_layer", "aten._cudnn_rnn"})
"""A layer of an LSTM on a CPU, and all layers of any recurrent module on a GPU; other devices have products."""

_VIEWS = frozenset(
    {
        *(
            "aten.t",
            "aten.transpose",
            "aten.permute",
            "aten.view",
            "aten.reshape",
            "aten._unsafe_view",
            "aten.numpy_T",
        ),
        *("aten.unsqueeze", "aten.squeeze", "aten.expand", "aten.select", "aten.slice", "aten.split", "aten.unbind"),
        *("aten.split_with_sizes", "aten.chunk", "aten.alias", "aten.detach", "aten.clone", "aten._to_copy"),
    }
)
"""What gives the same weights in another shape."""


def multiply_adds(graph: Graph, examples: int) -> dict[str, int]:
    """By parameter: its multiply-adds for one of so many examples, zeros and padding included, in products of
    matrices, convolutions, recurrent and bilinear layers. Embeddings have none; scales, and products of two
    activations, are not counted."""
    names = dict(graph.names)
    found: dict[str, int] = {}
    for operation in graph.operations:
        for weight, count in _products(graph, operation):
            if name := names.get(weight):
                found[name] = found.get(name, 0) + count
        if operation.name in _VIEWS and operation.inputs[:1] and (name := names.get(operation.inputs[0])):
            names |= {index: name for index in operation.outputs if index is not None}
    return {name: count // examples for name, count in found.items()}


def _products(graph: Graph, operation: Operation) -> Iterator[tuple[int, int]]:
    """The tensors that may be weights in an operation, with the number of their multiply-adds."""
    shapes, arguments = graph.shapes, operation.arguments
    output = next((index for index in operation.outputs if index is not None), None)
    if output is None:
        return
    if operation.name in ("aten.convolution", "aten._convolution", "aten.mkldnn_convolution"):
        inputs, weight = arguments[0].index, arguments[1].index
        # A transposed convolution multiplies its kernel with each input, another with each output.
        transposed = operation.name != "aten.mkldnn_convolution" and arguments[6]
        side = shapes[inputs if transposed else output]
        yield weight, math.prod(side) // shapes[weight][0] * math.prod(shapes[weight])
    elif operation.name in _PRODUCTS:
        left, right = (arguments[place] for place in _PRODUCTS[operation.name])
        assert isinstance(left, TensorIndex)
        assert isinstance(right, TensorIndex)
        count = math.prod(shapes[output]) * shapes[left.index][-1]
        yield from ((left.index, count), (right.index, count))
    elif operation.name in _RECURRENT:
        # They are multiplied in every step of every sequence, of which (steps, sequences) are the first axes.
        steps = math.prod(shapes[arguments[0].index][:-1])
        weights = arguments[1] if operation.name == "aten._cudnn_rnn" else arguments[1:3]
        yield from (
            (each.index, steps * math.prod(shape)) for each in weights if len(shape := shapes[each.index]) == 2
        )
    elif operation.name == "aten._trilinear":  # of a bilinear layer: its output is [examples, outputs]
        weight = arguments[1].index
        yield weight, shapes[output][0] * math.prod(shapes[weight])
