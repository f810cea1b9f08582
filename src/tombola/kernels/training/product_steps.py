"""Convolutions and linear layers, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from tombola.kernels.compiled import compiled
from tombola.kernels.products import dense_gradient, dense_product, gather, sampled_product, sparse_product
from tombola.kernels.training.elementwise import clear_gradient_padding
from tombola.kernels.training.tables import Step
from tombola.kernels.vectors import LANES, add, load, splat, total


@compiled
def product_forward(net: Any, weights: Any, work: Any, step: Step, g: int) -> None:
    """The product of group `g`, or of the whole batch, with bias and ReLU."""
    n, room, rows = work.n, work.room, step.rows
    values = weights.parameters[step.weights : step.weights_end]
    columns = net.columns[step.entry : step.entry + step.entries]
    bounds = net.bounds[step.bound : step.bounds]
    biases = weights.parameters[step.bias : step.bias + rows] if step.bias >= 0 else weights.parameters[0:0]
    minimum = np.float32(0) if step.relu else np.float32(-np.inf)
    nothing = weights.parameters[0:0]
    vectors = work.vectors if step.whole else step.width
    hop, out_hop = (work.hop, work.hop) if step.whole else (LANES * step.stride_w, LANES)
    for y in range(step.height):
        base = g * room + (step.x + y * step.stride_h * step.x_line) * n
        offset = g * room + (step.y + y * step.y_line) * n
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
        base = g * work.room + (step.x + y * step.stride_h * step.x_line) * n
        left = g * work.back_room + (step.dy + y * step.dy_line) * n
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
    n, room, back_room = work.n, work.room, work.back_room
    values = weights.parameters[step.weights : step.weights_end]
    if step.sparse:
        values = work.transposed[step.back : step.backs]
    nothing = weights.parameters[0:0]
    minimum = np.float32(-np.inf)
    back_columns, back_places = net.back_columns[step.back : step.backs], net.back_places[step.back : step.backs]
    for group in range(g, work.groups if step.whole else g + 1):
        clear_gradient_padding(work, step, group)
    if step.linear:
        # The pixels of the source are the rows: all at once, or line by line where there is padding between them.
        pixels = step.in_height * step.in_width
        contiguous = step.dx_plane == pixels and step.x_plane == pixels
        runs = 1 if contiguous else step.channels * step.in_height
        size = step.channels * pixels // runs
        for run in range(runs):
            c, y = divmod(run, step.in_height)
            into = step.dx + c * step.dx_plane + y * step.dx_line
            gate = step.x + c * step.x_plane + y * step.x_line
            first = net.phases[step.phase].bound + run * size
            stream = (
                work.deltas, step.dy * n, n, work.back_hop, work.vectors, work.deltas, into * n, n, work.back_hop,
                work.deltas, n, -1 if step.dx_first else into * n,
                work.activations, gate * n if step.x_relu else -1, n, work.hop,
            )  # fmt: skip
            if step.sparse:
                bounds = net.back_bounds[first : first + size + 1]
                sparse_product(values, back_columns, bounds, size, nothing, minimum, *stream)
            else:
                dense_product(values, run * size, 1, back_places, back_columns, size, nothing, minimum, *stream)
        return
    for number in range(step.phase, step.phases):
        phase = net.phases[number]
        columns = back_columns[phase.entry : phase.entry + phase.entries]
        bounds = net.back_bounds[phase.bound : phase.bounds]
        vectors = work.vectors if step.whole else phase.width
        hop, out_hop = (work.back_hop, work.back_hop) if step.whole else (LANES, LANES * step.stride_w)
        gate_hop = work.hop if step.whole else LANES * step.stride_w
        for i in range(phase.height):
            line = phase.y + i * step.stride_h
            base = g * back_room + (step.dy + i * step.dy_line) * n
            into = g * back_room + (step.dx + line * step.dx_line + phase.x) * n
            first_pixel = step.x + step.top * step.x_line + step.left
            gate = g * room + (first_pixel + line * step.x_line + phase.x) * n
            stream = (
                work.deltas, base, n, hop, vectors, work.deltas, into, step.dx_plane * n, out_hop,
                work.deltas, step.dx_plane * n, -1 if step.dx_first else into,
                work.activations, gate if step.x_relu else -1, step.x_plane * n, gate_hop,
            )  # fmt: skip
            if step.sparse:
                sparse_product(values, back_columns, bounds, step.channels, nothing, minimum, *stream)
            else:
                places = back_places[phase.entry : phase.entry + phase.entries]
                row_step = step.kernel_h * step.kernel_w
                dense_product(values, 0, row_step, places, columns, step.channels, nothing, minimum, *stream)
