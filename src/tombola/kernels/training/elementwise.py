"""Batch norm, copies, additions and dropout, forward and backward; for the lines of one group."""

from __future__ import annotations

from typing import Any

import numpy as np

from tombola.kernels.compiled import compiled
from tombola.kernels.images import clear_padding
from tombola.kernels.products import Floats
from tombola.kernels.random import uniform
from tombola.kernels.training.places import gradient_at, value_at
from tombola.kernels.training.tables import Step
from tombola.kernels.vectors import (
    LANES,
    add,
    fma,
    larger,
    load,
    multiply,
    splat,
    store,
    subtract,
    total,
    where_positive,
)


@compiled
def scale_line(
    source: Floats, place: int, scale: float, shift: float, addend: Floats, addend_place: int, minimum: Any,
    out: Floats, out_place: int, count: int,
) -> None:  # fmt: skip
    """out = max(minimum, source · scale + shift + addend), `count` numbers; without an addend if its place is -1."""
    scales, shifts, minimums = splat(np.float32(scale)), splat(np.float32(shift)), splat(minimum)
    if addend_place >= 0:
        for t in range(0, count, LANES):
            value = add(fma(scales, load(source, place + t), shifts), load(addend, addend_place + t))
            store(out, out_place + t, larger(value, minimums))
    else:
        for t in range(0, count, LANES):
            store(out, out_place + t, larger(fma(scales, load(source, place + t), shifts), minimums))


@compiled
def pass_gradient(
    gradient: Floats,
    place: int,
    values: Floats,
    relu_place: int,
    first: bool,
    out: Floats,
    out_place: int,
    count: int,
) -> None:
    """Write a gradient, or add it, where `values` is positive; everywhere if `relu_place` is -1."""
    for t in range(0, count, LANES):
        value = load(gradient, place + t)
        if relu_place >= 0:
            value = where_positive(value, load(values, relu_place + t))
        if not first:
            value = add(value, load(out, out_place + t))
        store(out, out_place + t, value)


@compiled
def add_sums(work: Any, step: Step, g: int, place: int, plane: int, line: int, height: int, width: int) -> None:
    """Add to `work.sums` those of values and squares of each channel of group `g`, relative to the first value of the
    channel, which is kept in `work.mean`: it is about as far from the mean as others, so that nothing cancels."""
    n = work.n
    for c in range(step.rows):
        begin = value_at(work, g, place + c * plane)
        if g == 0:
            work.mean[step.sums + c] = work.activations[begin]
        shift = splat(np.float32(work.mean[step.sums + c]))
        one = other = splat(np.float32(0))
        for y in range(height):
            at = begin + y * line * n
            for t in range(0, width * n, LANES):
                value = subtract(load(work.activations, at + t), shift)
                value = multiply(value, load(work.valid, g * n + t % n))
                one, other = add(one, value), fma(value, value, other)
        work.sums[2 * (step.sums + c)] += total(one)
        work.sums[2 * (step.sums + c) + 1] += total(other)


@compiled
def prepare_norm(weights: Any, work: Any, step: Step, examples: int, training: bool) -> None:
    """Set mean and deviation of each channel, those of the batch in training, and update the running statistics."""
    count = examples * step.height * step.width
    for c in range(step.rows):
        at = step.statistics + c
        mean, variance = np.float64(weights.means[at]), np.float64(weights.variances[at])
        if training:
            shift = work.sums[2 * at] / count
            batch_mean, batch_variance = work.mean[at] + shift, work.sums[2 * at + 1] / count - shift * shift
            if batch_variance < 0:  # by rounding; NaN stays
                batch_variance = 0.0
            weights.means[at] = mean + step.momentum * (batch_mean - mean)
            unbiased = batch_variance * count / (count - 1)
            weights.variances[at] = variance + step.momentum * (unbiased - variance)
            mean, variance = batch_mean, batch_variance
            work.sums[2 * at] = work.sums[2 * at + 1] = 0.0
        work.mean[at] = mean
        work.deviation[at] = 1 / np.sqrt(variance + step.eps)


@compiled
def norm_forward(weights: Any, work: Any, step: Step, g: int) -> None:
    """Batch norm with addend and ReLU."""
    values, count = work.activations, step.width * work.n
    minimum = np.float32(0) if step.relu else np.float32(-np.inf)
    for c in range(step.rows):
        scale = weights.parameters[step.scale + c] * work.deviation[step.statistics + c]
        shift = weights.parameters[step.bias + c] - work.mean[step.statistics + c] * scale
        for y in range(step.height):
            x = value_at(work, g, step.x + c * step.x_plane + y * step.x_line)
            a = value_at(work, g, step.a + c * step.a_plane + y * step.a_line) if step.a >= 0 else -1
            out = value_at(work, g, step.y + c * step.y_plane + y * step.y_line)
            scale_line(values, x, scale, shift, values, a, minimum, values, out, count)


@compiled
def norm_sums(work: Any, step: Step, g: int) -> None:
    """Add up, for each channel, the gradient and its product with the centred inputs; pass it on to the addend."""
    count = step.width * work.n
    for c in range(step.rows):
        mean = splat(np.float32(work.mean[step.statistics + c]))
        one = other = splat(np.float32(0))
        for y in range(step.height):
            x = value_at(work, g, step.x + c * step.x_plane + y * step.x_line)
            dy = gradient_at(work, g, step.dy + c * step.dy_plane + y * step.dy_line)
            for t in range(0, count, LANES):
                gradient = load(work.deltas, dy + t)
                one = add(one, gradient)
                other = fma(gradient, subtract(load(work.activations, x + t), mean), other)
        work.sums[2 * (step.statistics + c)] += total(one)
        work.sums[2 * (step.statistics + c) + 1] += total(other)


@compiled
def norm_gradients(weights: Any, work: Any, step: Step) -> None:
    """The gradients of scale and shift, from `norm_sums` of all groups."""
    for c in range(step.rows):
        at = step.statistics + c
        weights.gradients[step.bias + c] = work.sums[2 * at]
        weights.gradients[step.scale + c] = work.sums[2 * at + 1] * work.deviation[at]


@compiled
def norm_backward(weights: Any, work: Any, step: Step, g: int, examples: int) -> None:
    """The gradient of the inputs, from `norm_sums` of all groups."""
    n, count, all_of_channel = work.n, step.width * work.n, examples * step.height * step.width
    for c in range(step.rows):
        at = step.statistics + c
        scale = np.float32(weights.parameters[step.scale + c] * work.deviation[at])
        one = work.sums[2 * at] / all_of_channel
        other = work.sums[2 * at + 1] / all_of_channel * work.deviation[at] ** 2
        # scale · (dy - one - (x - mean) · other) = scale · dy + factor · x + shift
        factor, shift = splat(np.float32(-scale * other)), splat(np.float32(scale * (work.mean[at] * other - one)))
        scales = splat(scale)
        for y in range(step.height):
            x = value_at(work, g, step.x + c * step.x_plane + y * step.x_line)
            dy = gradient_at(work, g, step.dy + c * step.dy_plane + y * step.dy_line)
            dx = gradient_at(work, g, step.dx + c * step.dx_plane + y * step.dx_line)
            for t in range(0, count, LANES):
                source = load(work.activations, x + t)
                value = fma(scales, load(work.deltas, dy + t), fma(factor, source, shift))
                value = multiply(value, load(work.valid, g * n + t % n))
                if step.x_relu:
                    value = where_positive(value, source)
                if not step.dx_first:
                    value = add(value, load(work.deltas, dx + t))
                store(work.deltas, dx + t, value)


@compiled
def clear_gradient_padding(work: Any, step: Step, g: int) -> None:
    """Set the zeros around the gradients that this step is the first to write, of source and addend."""
    if step.dx >= 0 and step.dx_first:
        place, size = (step.dx, step.dx_plane, step.dx_line), (step.channels, step.in_height, step.in_width)
        padding = step.dx_top, step.dx_left, step.dx_bottom, step.dx_right
        clear_padding(work.deltas, g * work.back_group_size, work.n, place, size, padding)
    if step.da >= 0 and step.da_first:
        place, size = (step.da, step.da_plane, step.da_line), (step.rows, step.height, step.width)
        padding = step.da_top, step.da_left, step.da_bottom, step.da_right
        clear_padding(work.deltas, g * work.back_group_size, work.n, place, size, padding)


@compiled
def addend_backward(work: Any, step: Step, g: int) -> None:
    """The gradient of the addend is that of the output."""
    n = work.n
    for c in range(step.rows):
        for y in range(step.height):
            dy = gradient_at(work, g, step.dy + c * step.dy_plane + y * step.dy_line)
            da = gradient_at(work, g, step.da + c * step.da_plane + y * step.da_line)
            a = value_at(work, g, step.a + c * step.a_plane + y * step.a_line) if step.a_relu else -1
            pass_gradient(work.deltas, dy, work.activations, a, step.da_first, work.deltas, da, step.width * n)


@compiled
def copy_forward(work: Any, step: Step, g: int) -> None:
    """Every `stride`-th pixel, with addend and ReLU; channels that the source does not have are zero."""
    n, values = work.n, work.activations
    minimum = np.float32(0) if step.relu else np.float32(-np.inf)
    pixels, length = (1, step.width) if step.stride_w == 1 else (step.width, 1)
    for c in range(step.rows):
        scale = 1.0 if c < step.channels else 0.0
        channel = min(c, step.channels - 1)
        for y in range(step.height):
            for i in range(pixels):
                x = step.x + channel * step.x_plane + y * step.stride_h * step.x_line + i * step.stride_w
                a = value_at(work, g, step.a + c * step.a_plane + y * step.a_line + i) if step.a >= 0 else -1
                out = value_at(work, g, step.y + c * step.y_plane + y * step.y_line + i)
                scale_line(values, value_at(work, g, x), scale, 0.0, values, a, minimum, values, out, length * n)


@compiled
def copy_backward(work: Any, step: Step, g: int) -> None:
    """The gradient of the source: zero for the pixels that are not copied."""
    n = work.n
    first = step.dx_first
    if first and step.stride_h * step.stride_w > 1:
        zero_gradient(work, step, g)
        first = 0
    pixels, length = (1, step.width) if step.stride_w == 1 else (step.width, 1)
    for c in range(min(step.rows, step.channels)):
        for y in range(step.height):
            for i in range(pixels):
                pixel = y * step.stride_h, i * step.stride_w
                x = value_at(work, g, step.x + c * step.x_plane + pixel[0] * step.x_line + pixel[1])
                dx = gradient_at(work, g, step.dx + c * step.dx_plane + pixel[0] * step.dx_line + pixel[1])
                dy = gradient_at(work, g, step.dy + c * step.dy_plane + y * step.dy_line + i)
                relu = x if step.x_relu else -1
                pass_gradient(work.deltas, dy, work.activations, relu, first, work.deltas, dx, length * n)


@compiled
def zero_gradient(work: Any, step: Step, g: int) -> None:
    """Set the gradient of the source to zero."""
    for c in range(step.channels):
        for y in range(step.in_height):
            dx = gradient_at(work, g, step.dx + c * step.dx_plane + y * step.dx_line)
            work.deltas[dx : dx + step.in_width * work.n] = 0


@compiled
def dropout(work: Any, step: Step, g: int, seed: int, iteration: int, back: bool) -> None:
    """Dropout of the source, or of the gradient. The factors depend on seed, iteration, unit and example, and are
    computed again in the backward pass."""
    n, scale = work.n, np.float32(1 / (1 - step.probability))
    for c in range(step.rows):
        for y in range(step.height):
            x = value_at(work, g, step.x + c * step.x_plane + y * step.x_line)
            out = value_at(work, g, step.y + c * step.y_plane + y * step.y_line)
            dx = gradient_at(work, g, step.dx + c * step.dx_plane + y * step.dx_line)
            dy = gradient_at(work, g, step.dy + c * step.dy_plane + y * step.dy_line)
            for t in range(step.width * n):
                unit = step.unit + (c * step.height + y) * step.width + t // n
                draw = uniform(seed, iteration, unit * work.groups * n + g * n + t % n)
                factor = np.float32(0) if draw < step.probability else scale
                if back:
                    value = work.deltas[dy + t] * factor
                    if step.x_relu and work.activations[x + t] <= 0:
                        value = np.float32(0)
                    work.deltas[dx + t] = value if step.dx_first else work.deltas[dx + t] + value
                else:
                    work.activations[out + t] = work.activations[x + t] * factor
