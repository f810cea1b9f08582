"""A single layer, for networks of which only some layers are computed here."""

from __future__ import annotations

from typing import Any

import numpy as np

from tombola.kernels.compiled import compiled
from tombola.kernels.products import Floats
from tombola.kernels.training.images import read_examples, write_examples
from tombola.kernels.training.product_steps import (
    product_backward,
    product_forward,
    product_gradients,
    transpose_values,
)


@compiled
def write_block(
    x: Floats, first: int, count: int, work: Any, size: Any, out: Floats, room: int, begin: int, plane: int, line: int
) -> None:
    """Write `count` examples from number `first`, of contiguous ones; those that fill up the last group are zero."""
    numbers = size[0] * size[1] * size[2]
    starts = np.empty(work.n, np.int64)
    for g in range(work.groups):
        inside = max(0, min(work.n, count - g * work.n))
        for b in range(work.n):
            starts[b] = (first + (g * work.n + b if b < inside else 0)) * numbers
        write_examples(x, starts, work.n, size, out, g * room, begin, plane, line)
        if inside < work.n:
            for c in range(size[0]):
                for i in range(size[1]):
                    for j in range(size[2]):
                        place = g * room + (begin + c * plane + i * line + j) * work.n
                        out[place + inside : place + work.n] = 0


@compiled
def read_block(
    source: Floats, room: int, begin: int, plane: int, line: int, work: Any, size: Any, first: int, count: int,
    out: Floats,
) -> None:  # fmt: skip
    """Copy `count` examples to `out`, contiguous, from number `first`."""
    numbers = size[0] * size[1] * size[2]
    for g in range(work.groups):
        inside = max(0, min(work.n, count - g * work.n))
        if inside:
            place = (first + g * work.n) * numbers
            read_examples(source, g * room, begin, plane, line, work.n, inside, size, out, place)


@compiled
def layer_forward(net: Any, weights: Any, work: Any, x: Floats, examples: int, out: Floats) -> None:
    """The outputs of `examples` inputs, both contiguous, example by example."""
    step = net.steps[1]
    size, out_size = (step.channels, step.in_height, step.in_width), (step.rows, step.height, step.width)
    block = work.groups * work.n
    inputs = net.steps[0]
    for first in range(0, examples, block):
        count = min(block, examples - first)
        write_block(x, first, count, work, size, work.activations, work.room, inputs.x, inputs.x_plane, inputs.x_line)
        for g in range(1 if step.whole else work.groups):
            product_forward(net, weights, work, step, g)
        read_block(work.activations, work.room, step.y, step.y_plane, step.y_line, work, out_size, first, count, out)


@compiled
def layer_backward(
    net: Any, weights: Any, work: Any, x: Floats, examples: int, gradient: Floats, of_x: Floats
) -> None:
    """Set the gradients of the parameters and, unless `of_x` is empty, of the inputs, from that of the outputs."""
    step = net.steps[1]
    size, out_size = (step.channels, step.in_height, step.in_width), (step.rows, step.height, step.width)
    block = work.groups * work.n
    inputs = net.steps[0]
    weights.gradients[:] = 0
    if of_x.size:
        transpose_values(net, weights, work, step)
    for first in range(0, examples, block):
        count = min(block, examples - first)
        write_block(x, first, count, work, size, work.activations, work.room, inputs.x, inputs.x_plane, inputs.x_line)
        write_block(
            gradient, first, count, work, out_size, work.deltas, work.back_room, step.dy, step.dy_plane, step.dy_line
        )
        for g in range(1 if step.whole else work.groups):
            product_gradients(net, weights, work, step, g)
            if of_x.size:
                product_backward(net, weights, work, step, g)
        if of_x.size:
            read_block(
                work.deltas, work.back_room, step.dx, step.dx_plane, step.dx_line, work, size, first, count, of_x
            )
