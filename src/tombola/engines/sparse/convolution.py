"""Convolution: sparse convolutions and linear layers as sparse products, a few images at a time.

Images are padded and laid out flat, so that moving a kernel's weight across an image is moving along a row: output
position q reads input position q plus the same shift everywhere, and each weight left is one stream of multiply-adds.
With a stride, the positions of a padded image are first dealt out to as many images as there are phases, of which the
same holds. At the ends of lines positions are computed that are no output's; they are not collected, and their
gradients are zero. A linear layer is a convolution of images of one pixel.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tombola.engines.sparse.compiled import compiled
from tombola.engines.sparse.packed import Pattern, grouped
from tombola.engines.sparse.products import Floats, Indices, sampled_product, sparse_times_dense, take

TOGETHER = 1024
"""How many positions of a channel are worked on at a time, if an image has no more."""


class Geometry(NamedTuple):
    """Sizes of a convolution. Inputs are (images, channels, height, width), contiguous."""

    channels: int
    height: int
    width: int
    top: int
    left: int
    """Zeros above and to the left of an image."""
    down: int
    across: int
    """The strides."""
    lines: int
    line: int
    """Of a padded image, or of each of its down × across phases."""
    outputs: int
    out_height: int
    out_width: int
    together: int
    """How many images are laid out side by side."""
    guard: int
    """The largest shift."""
    span: int
    """Positions of a channel that outputs are computed at: a multiple of 64."""
    back: int
    """Positions of a channel that input gradients are computed at: a multiple of 64."""
    source_row: int
    """Distance between channels of laid-out inputs."""
    grad_row: int
    """Distance between channels of laid-out output gradients, which have a guard of zeros in front."""


class Kernel(NamedTuple):
    """What a convolution multiplies with, as `products` wants it, forward and back."""

    columns: Indices
    bounds: Indices
    back_columns: Indices
    back_bounds: Indices
    back_places: Indices


class Spread(NamedTuple):
    """How a layer's kernel lies on its inputs; a linear layer's is all ones and zeros."""

    size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Above, below, left and right."""
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


def geometry_of(spread: Spread, outputs: int, images: int, channels: int, height: int, width: int) -> Geometry:
    """The sizes of a convolution of that many images of this shape."""
    (kernel_h, kernel_w), (down, across), (dilation_h, dilation_w) = spread.size, spread.stride, spread.dilation
    top, bottom, left, right = spread.padding
    tall, wide = height + top + bottom, width + left + right
    out_height = (tall - (kernel_h - 1) * dilation_h - 1) // down + 1
    out_width = (wide - (kernel_w - 1) * dilation_w - 1) // across + 1
    lines, line = -(-tall // down), -(-wide // across)
    image = lines * line
    together = max(1, min(images, TOGETHER // image))
    guard = (kernel_h - 1) * dilation_h // down * line + (kernel_w - 1) * dilation_w // across
    span = _to_64((together - 1) * image + (out_height - 1) * line + out_width)
    back = _to_64(together * image)
    return Geometry(
        *(channels, height, width, top, left, down, across, lines, line, outputs, out_height, out_width, together),
        guard=guard,
        span=span,
        back=back,
        source_row=max(back, span + guard),
        grad_row=guard + max(back, span),
    )


def kernel_of(pattern: Pattern, spread: Spread, geometry: Geometry) -> Kernel:
    """Where the weights of `pattern`, a matrix of (outputs, inputs of a group · kernel), find their inputs."""
    (kernel_h, kernel_w), g = spread.size, geometry
    per_group = g.channels // spread.groups
    row, column = np.divmod(pattern.order, per_group * kernel_h * kernel_w)
    channel, y, x = np.unravel_index(column, (per_group, kernel_h, kernel_w))
    channel = channel + row // (g.outputs // spread.groups) * per_group
    (shift_y, phase_y), (shift_x, phase_x) = (
        np.divmod(y * spread.dilation[0], g.down),
        np.divmod(x * spread.dilation[1], g.across),
    )
    plane = (channel * g.down + phase_y) * g.across + phase_x
    shift = shift_y * g.line + shift_x
    places, back_bounds = grouped(plane, g.channels * g.down * g.across)
    return Kernel(
        columns=(plane * g.source_row + shift).astype(np.int32),
        bounds=pattern.bounds,
        back_columns=(row * g.grad_row + g.guard - shift)[places].astype(np.int32),
        back_bounds=back_bounds,
        back_places=places,
    )


def _to_64(size: int) -> int:
    return -(-size // 64) * 64


@compiled
def lay_out(x: Any, first: int, images: int, g: Any, out: Floats) -> None:
    """Put some images into `out`, padded and dealt out to phases. What is padding there is not touched."""
    if g.lines * g.line == 1:
        for begin in range(0, g.channels, 16):  # a block of channels stays in the nearest cache
            for n in range(images):
                for c in range(begin, min(begin + 16, g.channels)):
                    out[c * g.source_row + n] = x[first + n, c, 0, 0]
        return
    for c in range(g.channels):
        for n in range(images):
            for y in range(g.height):
                line, phase_y = divmod(y + g.top, g.down)
                begin = (n * g.lines + line) * g.line
                if g.across == 1:
                    begin += (c * g.down + phase_y) * g.source_row + g.left
                    for i in range(g.width):
                        out[begin + i] = x[first + n, c, y, i]
                else:
                    for i in range(g.width):
                        place, phase_x = divmod(i + g.left, g.across)
                        plane = (c * g.down + phase_y) * g.across + phase_x
                        out[plane * g.source_row + begin + place] = x[first + n, c, y, i]


@compiled
def collect_gradient(laid: Floats, first: int, images: int, g: Any, out: Any) -> None:
    """Take the gradients of some images out of `laid`: the way back of `lay_out`."""
    if g.lines * g.line == 1:
        for begin in range(0, g.channels, 16):
            for n in range(images):
                for c in range(begin, min(begin + 16, g.channels)):
                    out[first + n, c, 0, 0] = laid[c * g.back + n]
        return
    for c in range(g.channels):
        for n in range(images):
            for y in range(g.height):
                line, phase_y = divmod(y + g.top, g.down)
                begin = (n * g.lines + line) * g.line
                if g.across == 1:
                    begin += (c * g.down + phase_y) * g.back + g.left
                    for i in range(g.width):
                        out[first + n, c, y, i] = laid[begin + i]
                else:
                    for i in range(g.width):
                        place, phase_x = divmod(i + g.left, g.across)
                        plane = (c * g.down + phase_y) * g.across + phase_x
                        out[first + n, c, y, i] = laid[plane * g.back + begin + place]


@compiled
def convolve(x: Any, values: Floats, bias: Floats, kernel: Any, g: Any, out: Any) -> None:
    """out = x ∗ values + bias. `bias` is empty where there is none."""
    source = np.zeros(g.channels * g.down * g.across * g.source_row, np.float32)
    sums = np.empty(g.outputs * g.span, np.float32)
    for first in range(0, x.shape[0], g.together):
        images = min(g.together, x.shape[0] - first)
        lay_out(x, first, images, g, source)
        sparse_times_dense(values, kernel.columns, kernel.bounds, g.outputs, 1, source, g.span, sums)
        for o in range(g.outputs):
            add = bias[o] if bias.size else np.float32(0)
            for n in range(images):
                for y in range(g.out_height):
                    begin = o * g.span + (n * g.lines + y) * g.line
                    for i in range(g.out_width):
                        out[first + n, o, y, i] = sums[begin + i] + add


@compiled
def convolve_back(
    x: Any, values: Floats, kernel: Any, g: Any, gradient: Any, values_gradient: Floats, x_gradient: Any
) -> None:
    """From the gradient of the outputs to those of the values, and of the inputs unless `x_gradient` is empty."""
    source = np.zeros(g.channels * g.down * g.across * g.source_row, np.float32)
    left = np.zeros(g.outputs * g.grad_row, np.float32)
    wanted = x_gradient.size > 0
    sums = np.empty(g.channels * g.down * g.across * g.back if wanted else 0, np.float32)
    turned = np.empty(values.size, np.float32)
    take(values, kernel.back_places, turned)
    values_gradient[:] = 0
    for first in range(0, x.shape[0], g.together):
        images = min(g.together, x.shape[0] - first)
        if images < g.together:
            left[:] = 0  # what was there before must not count again
        lay_out(x, first, images, g, source)
        for o in range(g.outputs):
            for n in range(images):
                for y in range(g.out_height):
                    begin = o * g.grad_row + g.guard + (n * g.lines + y) * g.line
                    for i in range(g.out_width):
                        left[begin + i] = gradient[first + n, o, y, i]
        sampled_product(
            kernel.columns, kernel.bounds, g.outputs, 1, left[g.guard :], g.grad_row, source, g.span, values_gradient
        )
        if wanted:
            planes = g.channels * g.down * g.across
            sparse_times_dense(turned, kernel.back_columns, kernel.back_bounds, planes, 1, left, g.back, sums)
            collect_gradient(sums, first, images, g, x_gradient)
