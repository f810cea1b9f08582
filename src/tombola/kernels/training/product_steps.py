"""Convolutions and linear layers, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from tombola.kernels.compiled import compiled
from tombola.kernels.products import (
    Floats,
    Indices,
    dense_gradient,
    dense_product,
    gather,
    sampled_product,
    sparse_product,
)
from tombola.kernels.training.places import gradient_at, value_at
from tombola.kernels.training.tables import Step
from tombola.kernels.vectors import LANES, add, load, splat, total


@compiled
def product_forward(net: Any, weights: Any, work: Any, step: Step, g: int) -> None:
    """The product of group `g`, or of the whole batch, with bias and ReLU."""
    n, group_size, rows = work.n, work.group_size, step.rows
    values = weights.parameters[step.weights : step.weights_end]
    columns = net.columns[step.entry : step.entry + step.entries]
    bounds = net.bounds[step.bound : step.bounds]
    biases = weights.parameters[step.bias : step.bias + rows] if step.bias >= 0 else weights.parameters[0:0]
    minimum = np.float32(0) if step.relu else np.float32(-np.inf)
    nothing = weights.parameters[0:0]
    vectors = work.vectors if step.whole else step.width
    hop, out_hop = (work.hop, work.hop) if step.whole else (LANES * step.stride_w, LANES)
    for y in range(step.height):
        base = g * group_size + (step.x + y * step.stride_h * step.x_line) * n
        offset = g * group_size + (step.y + y * step.y_line) * n
        stream = work.activations, base, n, hop, vectors, work.activations, offset, step.y_plane * n, out_hop
        if step.sparse:
            sparse_product(values, columns, bounds, rows, biases, minimum, *stream, nothing, 0, -1, nothing, -1, 0, 0)
        else:
            places = net.places[step.entry : step.entry + step.entries]
            dense_product(
                values, 0, step.entries, places, columns, rows, biases, minimum, *stream, nothing, 0, -1,
                nothing, -1, 0, 0,
            )  # fmt: skip


@compiled
def product_gradients(net: Any, weights: Any, work: Any, step: Step, g: int) -> None:
    """Add the gradients of the parameters, of group `g` or of the whole batch; of a step `by_rows`, of its bias."""
    n, rows = work.n, step.rows
    gradients = weights.gradients[step.weights : step.weights_end]
    columns = net.columns[step.entry : step.entry + step.entries]
    bounds = net.bounds[step.bound : step.bounds]
    vectors = work.vectors if step.whole else step.width
    hop, left_hop = (work.hop, work.back_hop) if step.whole else (LANES * step.stride_w, LANES)
    for y in range(step.height):
        base = value_at(work, g, step.x + y * step.stride_h * step.x_line)
        left = gradient_at(work, g, step.dy + y * step.dy_line)
        stream = work.deltas, left, step.dy_plane * n, left_hop, work.activations, base, n, hop, vectors, gradients
        if step.sparse:
            sampled_product(columns, bounds, rows, *stream)
        elif not step.by_rows:
            places = net.places[step.entry : step.entry + step.entries]
            dense_gradient(places, columns, rows, 0, step.entries, *stream)
        if step.bias >= 0:
            for r in range(rows):
                whole = splat(np.float32(0))
                for v in range(vectors):
                    whole = add(whole, load(work.deltas, left + r * step.dy_plane * n + v * left_hop))
                weights.gradients[step.bias + r] += total(whole)


@compiled
def mask_gradients(net: Any, weights: Any, step: Step) -> None:
    """Set the gradients of the pruned weights of a dense layer to zero."""
    for k in range(step.weights, step.weights_end):
        weights.gradients[k] *= net.kept[k]


@compiled
def transpose_values(net: Any, weights: Any, work: Any, step: Step) -> None:
    """Set the values of the transpose, for `product_backward`."""
    if step.sparse:
        values = weights.parameters[step.weights : step.weights_end]
        gather(values, net.back_places[step.back : step.backs], work.transposed[step.back : step.backs])


@compiled
def product_backward(net: Any, weights: Any, work: Any, step: Step, g: int) -> None:
    """The gradient of the source, of group `g` or of the whole batch."""
    values = weights.parameters[step.weights : step.weights_end]
    if step.sparse:
        values = work.transposed[step.back : step.backs]
    columns, places = net.back_columns[step.back : step.backs], net.back_places[step.back : step.backs]
    nothing, lowest = weights.parameters[0:0], np.float32(-np.inf)
    if step.linear:
        linear_backward(net, work, step, values, columns, places, nothing, lowest)
        return
    for number in range(step.phase, step.phases):
        convolution_backward(net, work, step, net.phases[number], g, values, columns, places, nothing, lowest)


@compiled
def linear_backward(
    net: Any, work: Any, step: Step, values: Floats, columns: Indices, places: Indices, nothing: Floats, lowest: Any
) -> None:
    """The pixels of the source are the rows of the product: all at once, or line by line where there is padding
    between them."""
    n, pixels = work.n, step.in_height * step.in_width
    contiguous = step.dx_plane == pixels and step.x_plane == pixels
    runs = 1 if contiguous else step.channels * step.in_height
    size = step.channels * pixels // runs
    for run in range(runs):
        c, y = divmod(run, step.in_height)
        into = (step.dx + c * step.dx_plane + y * step.dx_line) * n
        gate = (step.x + c * step.x_plane + y * step.x_line) * n if step.x_relu else -1
        stream = (
            work.deltas, step.dy * n, n, work.back_hop, work.vectors, work.deltas, into, n, work.back_hop,
            work.deltas, n, -1 if step.dx_first else into, work.activations, gate, n, work.hop,
        )  # fmt: skip
        if step.sparse:
            first = net.phases[step.phase].bound + run * size
            bounds = net.back_bounds[first : first + size + 1]
            sparse_product(values, columns, bounds, size, nothing, lowest, *stream)
        else:
            dense_product(values, run * size, 1, places, columns, size, nothing, lowest, *stream)


@compiled
def convolution_backward(
    net: Any, work: Any, step: Step, phase: Any, g: int, values: Floats, columns: Indices, places: Indices,
    nothing: Floats, lowest: Any,
) -> None:  # fmt: skip
    """The gradients of the pixels of one phase are a product of the gradient of the output."""
    n, channels = work.n, step.channels
    own = columns[phase.entry : phase.entry + phase.entries]
    own_places = places[phase.entry : phase.entry + phase.entries]
    bounds = net.back_bounds[phase.bound : phase.bounds]
    vectors = work.vectors if step.whole else phase.width
    hop, out_hop = (work.back_hop, work.back_hop) if step.whole else (LANES, LANES * step.stride_w)
    gate_hop = work.hop if step.whole else LANES * step.stride_w
    first_pixel = step.x + step.top * step.x_line + step.left
    for i in range(phase.height):
        line = phase.y + i * step.stride_h
        base = gradient_at(work, g, step.dy + i * step.dy_line)
        into = gradient_at(work, g, step.dx + line * step.dx_line + phase.x)
        gate = value_at(work, g, first_pixel + line * step.x_line + phase.x) if step.x_relu else -1
        stream = (
            work.deltas, base, n, hop, vectors, work.deltas, into, step.dx_plane * n, out_hop,
            work.deltas, step.dx_plane * n, -1 if step.dx_first else into,
            work.activations, gate, step.x_plane * n, gate_hop,
        )  # fmt: skip
        if step.sparse:
            sparse_product(values, columns, bounds, channels, nothing, lowest, *stream)
        else:
            row_step = step.kernel_h * step.kernel_w
            dense_product(values, 0, row_step, own_places, own, channels, nothing, lowest, *stream)
