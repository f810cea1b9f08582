"""A single layer, for networks of which only some layers are computed here."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tombola.kernels.compiled import compiled
from tombola.kernels.images import Table, pack, unpack
from tombola.kernels.products import Floats
from tombola.kernels.training.product_steps import (
    product_backward,
    product_forward,
    product_gradients,
    transpose_values,
)


class LayerRuns(NamedTuple):
    """Where the pixels of inputs, outputs and their gradients are; see `tombola.kernels.images`."""

    x: Table
    y: Table
    dx: Table
    dy: Table


@compiled
def write_block(source: Floats, first: int, count: int, work: Any, runs: Table, out: Floats, group_size: int) -> None:
    """Write `count` examples of `source`, contiguous, from number `first`; those that fill up the last group are
    zero."""
    size = runs[:, 2].sum()
    starts = np.empty(work.n, np.int64)
    for g in range(work.groups):
        within = max(0, min(work.n, count - g * work.n))
        for b in range(work.n):
            starts[b] = (first + (g * work.n + b if b < within else 0)) * size
        pack(source, starts, runs, work.n, out, g * group_size)
        if within < work.n:
            for i in range(runs.shape[0]):
                for p in range(runs[i, 1], runs[i, 1] + runs[i, 2]):
                    out[g * group_size + p * work.n + within : g * group_size + (p + 1) * work.n] = 0


@compiled
def read_block(source: Floats, group_size: int, runs: Table, work: Any, first: int, count: int, out: Floats) -> None:
    """Copy `count` examples to `out`, contiguous, from number `first`."""
    size = runs[:, 2].sum()
    for g in range(work.groups):
        within = max(0, min(work.n, count - g * work.n))
        if within:
            unpack(source, g * group_size, runs, work.n, within, out, (first + g * work.n) * size, size)


@compiled
def layer_forward(net: Any, weights: Any, work: Any, runs: Any, x: Floats, examples: int, out: Floats) -> None:
    """The outputs of `examples` inputs, both contiguous, example by example."""
    step, block = net.steps[1], work.groups * work.n
    for first in range(0, examples, block):
        count = min(block, examples - first)
        write_block(x, first, count, work, runs.x, work.activations, work.group_size)
        for g in range(1 if step.whole else work.groups):
            product_forward(net, weights, work, step, g)
        read_block(work.activations, work.group_size, runs.y, work, first, count, out)


@compiled
def layer_backward(
    net: Any, weights: Any, work: Any, runs: Any, x: Floats, examples: int, gradient: Floats, of_x: Floats
) -> None:
    """Set the gradients of the parameters and, unless `of_x` is empty, of the inputs, from that of the outputs."""
    step, block = net.steps[1], work.groups * work.n
    weights.gradients[:] = 0
    if of_x.size:
        transpose_values(net, weights, work, step)
    for first in range(0, examples, block):
        count = min(block, examples - first)
        write_block(x, first, count, work, runs.x, work.activations, work.group_size)
        write_block(gradient, first, count, work, runs.dy, work.deltas, work.back_group_size)
        for g in range(1 if step.whole else work.groups):
            product_gradients(net, weights, work, step, g)
            if of_x.size:
                product_backward(net, weights, work, step, g)
        if of_x.size:
            read_block(work.deltas, work.back_group_size, runs.dx, work, first, count, of_x)
