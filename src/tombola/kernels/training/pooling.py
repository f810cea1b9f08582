"""Max and average pooling, forward and backward, of one group."""

from __future__ import annotations

from typing import Any

import numpy as np

from tombola.kernels.compiled import compiled
from tombola.kernels.training.elementwise import clear_gradient_padding, zero_gradient
from tombola.kernels.training.tables import MAX_POOL, Step
from tombola.kernels.vectors import (
    LANES,
    add,
    larger,
    load,
    multiply,
    splat,
    store,
    subtract,
    where_equal,
    where_positive,
)


@compiled
def window(first: int, dilation: int, size: int, count: int) -> tuple[int, int]:
    """Begin and end of those of `count` positions first, first + dilation, ... that are from 0 to `size` - 1."""
    return max(0, -(first // dilation)), min(count, -((first - size) // dilation))


@compiled
def pool_forward(work: Any, step: Step, g: int) -> None:
    """Pixels outside of the image do not count for a maximum, and are zeros in an average."""
    n, values = work.n, work.activations
    minimum = splat(np.float32(0) if step.relu else np.float32(-np.inf))
    share = splat(np.float32(1 / (step.kernel_h * step.kernel_w)))
    for c in range(step.rows):
        for y in range(step.height):
            top = y * step.stride_h - step.top
            i0, i1 = window(top, step.dilation_h, step.in_height, step.kernel_h)
            for x in range(step.width):
                left = x * step.stride_w - step.left
                j0, j1 = window(left, step.dilation_w, step.in_width, step.kernel_w)
                corner = step.x + c * step.x_plane + top * step.x_line + left
                out = g * work.room + (step.y + c * step.y_plane + y * step.y_line + x) * n
                for t in range(0, n, LANES):
                    result = nan = splat(np.float32(-np.inf))
                    if step.kind != MAX_POOL:
                        result = splat(np.float32(0))
                    for i in range(i0, i1):
                        for j in range(j0, j1):
                            pixel = corner + i * step.dilation_h * step.x_line + j * step.dilation_w
                            value = load(values, g * work.room + pixel * n + t)
                            if step.kind == MAX_POOL:
                                result = larger(value, result)
                                nan = subtract(nan, larger(value, splat(np.float32(np.inf))))  # -inf until one is NaN
                            else:
                                result = add(result, value)
                    result = larger(nan, result) if step.kind == MAX_POOL else multiply(result, share)
                    store(values, out + t, larger(result, minimum))


@compiled
def pool_backward(work: Any, step: Step, g: int) -> None:
    """The gradient of a maximum goes to the first pixel that has it."""
    n, values, deltas = work.n, work.activations, work.deltas
    share = splat(np.float32(1 / (step.kernel_h * step.kernel_w)))
    clear_gradient_padding(work, step, g)
    first = step.dx_first
    if first and not step.tiles:
        zero_gradient(work, step, g)
        first = 0
    for c in range(step.rows):
        for y in range(step.height):
            top = y * step.stride_h - step.top
            i0, i1 = window(top, step.dilation_h, step.in_height, step.kernel_h)
            for x in range(step.width):
                left = x * step.stride_w - step.left
                j0, j1 = window(left, step.dilation_w, step.in_width, step.kernel_w)
                out = g * work.room + (step.y + c * step.y_plane + y * step.y_line + x) * n
                dy = g * work.back_room + (step.dy + c * step.dy_plane + y * step.dy_line + x) * n
                for t in range(0, n, LANES):
                    rest, found = load(deltas, dy + t), load(values, out + t)
                    if step.kind != MAX_POOL:
                        rest = multiply(rest, share)
                    for i in range(i0, i1):
                        for j in range(j0, j1):
                            down, across = top + i * step.dilation_h, left + j * step.dilation_w
                            pixel = step.x + c * step.x_plane + down * step.x_line + across
                            into = step.dx + c * step.dx_plane + down * step.dx_line + across
                            source = load(values, g * work.room + pixel * n + t)
                            value = rest
                            if step.kind == MAX_POOL:
                                value = where_equal(rest, source, found)
                                rest = subtract(rest, value)
                            if step.x_relu:
                                value = where_positive(value, source)
                            at = g * work.back_room + into * n + t
                            if not first:
                                value = add(value, load(deltas, at))
                            store(deltas, at, value)
