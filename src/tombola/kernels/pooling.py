"""Max and average pooling of images that lie side by side, forward and backward.

Arguments that describe images are tuples. `place`: the first number, and the first pixel and the distances of
channels and lines, in pixels. `window`: kernel, stride and dilation, (height, width) each, and padding, (top, left).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tombola.kernels.compiled import compiled
from tombola.kernels.products import Floats
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
def inside(first: int, dilation: int, size: int, count: int) -> tuple[int, int]:
    """Begin and end of those of `count` positions first, first + dilation, ... that are from 0 to `size` - 1."""
    return max(0, -(first // dilation)), min(count, -((first - size) // dilation))


@compiled
def pool(
    values: Floats, n: int, place: Any, in_size: Any, out_place: Any, out_size: Any, window: Any, average: bool,
    minimum: Any,
) -> None:  # fmt: skip
    """Pool `n` images of `in_size`, (height, width), to `out_size`, (channels, height, width), with `minimum` as the
    least output. Pixels outside of an image do not count for a maximum, and are zeros in an average."""
    (base, first, plane, line), (out_base, out_first, out_plane, out_line) = place, out_place
    kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, top, left = window
    minimums, share = splat(minimum), splat(np.float32(1 / (kernel_h * kernel_w)))
    for c in range(out_size[0]):
        for y in range(out_size[1]):
            i0, i1 = inside(y * stride_h - top, dilation_h, in_size[0], kernel_h)
            for x in range(out_size[2]):
                j0, j1 = inside(x * stride_w - left, dilation_w, in_size[1], kernel_w)
                corner = first + c * plane + (y * stride_h - top) * line + x * stride_w - left
                out = out_base + (out_first + c * out_plane + y * out_line + x) * n
                if n == 1:
                    values[out] = one_maximum(values, base + corner, dilation_h * line, dilation_w, i0, i1, j0, j1)
                    continue
                for t in range(0, n, LANES):
                    result = nan = splat(np.float32(-np.inf))
                    if average:
                        result = splat(np.float32(0))
                    for i in range(i0, i1):
                        for j in range(j0, j1):
                            pixel = corner + i * dilation_h * line + j * dilation_w
                            value = load(values, base + pixel * n + t)
                            if average:
                                result = add(result, value)
                            else:
                                result = larger(value, result)
                                nan = subtract(nan, larger(value, splat(np.float32(np.inf))))  # -inf until one is NaN
                    result = multiply(result, share) if average else larger(nan, result)
                    store(values, out + t, larger(result, minimums))


@compiled
def one_maximum(values: Floats, corner: int, down: int, across: int, i0: int, i1: int, j0: int, j1: int) -> Any:
    """The maximum of a window of a single image."""
    maximum = np.float32(-np.inf)
    for i in range(i0, i1):
        for j in range(j0, j1):
            new = values[corner + i * down + j * across]
            maximum = new if new > maximum or np.isnan(new) else maximum
    return maximum


@compiled
def pool_gradient(
    values: Floats, deltas: Floats, n: int, place: Any, in_size: Any, out_place: Any, out_size: Any,
    gradient_place: Any, out_gradient_place: Any, window: Any, average: bool, relu: bool, overwrite: bool,
) -> None:  # fmt: skip
    """Write the gradient of the inputs, or add it; with `relu` only where they are positive. That of a maximum goes
    to the first pixel that has it."""
    (base, first, plane, line), (out_base, out_first, out_plane, out_line) = place, out_place
    d_base, d_first, d_plane, d_line = gradient_place
    d_out_base, d_out_first, d_out_plane, d_out_line = out_gradient_place
    kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, top, left = window
    share = splat(np.float32(1 / (kernel_h * kernel_w)))
    for c in range(out_size[0]):
        for y in range(out_size[1]):
            i0, i1 = inside(y * stride_h - top, dilation_h, in_size[0], kernel_h)
            for x in range(out_size[2]):
                j0, j1 = inside(x * stride_w - left, dilation_w, in_size[1], kernel_w)
                out = out_base + (out_first + c * out_plane + y * out_line + x) * n
                d_out = d_out_base + (d_out_first + c * d_out_plane + y * d_out_line + x) * n
                for t in range(0, n, LANES):
                    rest, found = load(deltas, d_out + t), load(values, out + t)
                    if average:
                        rest = multiply(rest, share)
                    for i in range(i0, i1):
                        for j in range(j0, j1):
                            down, across = y * stride_h - top + i * dilation_h, x * stride_w - left + j * dilation_w
                            source = load(values, base + (first + c * plane + down * line + across) * n + t)
                            value = rest
                            if not average:
                                value = where_equal(rest, source, found)
                                rest = subtract(rest, value)
                            if relu:
                                value = where_positive(value, source)
                            into = d_base + (d_first + c * d_plane + down * d_line + across) * n + t
                            if not overwrite:
                                value = add(value, load(deltas, into))
                            store(deltas, into, value)
