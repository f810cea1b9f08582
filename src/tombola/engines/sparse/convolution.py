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
from tombola.engines.sparse.packed import SparsityPattern, grouped
from tombola.engines.sparse.products import Floats, Indices, columns_of, sampled_product, sparse_times_dense, take
from tombola.engines.sparse.vectors import LANES, add, load, splat, store, transpose

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


def kernel_of(pattern: SparsityPattern, spread: Spread, geometry: Geometry) -> Kernel:
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
def move(source: Floats, begin: int, target: Floats, place: int, count: int, plus: float) -> None:
    """target[place:place + count] = source[begin:begin + count] + plus."""
    vectors = count // LANES * LANES
    addend = splat(np.float32(plus))
    for t in range(0, vectors, LANES):
        store(target, place + t, add(load(source, begin + t), addend))
    for t in range(vectors, count):
        target[place + t] = source[begin + t] + np.float32(plus)


@compiled
def single(g: Any) -> bool:
    """Whether images have one pixel and no padding, as those of linear layers: laying out is transposing."""
    return bool(g.lines * g.line * g.down * g.across == 1)


@compiled
def im2col(x: Floats, first: int, images: int, g: Any, out: Floats) -> None:
    """Put some images of `x`, flat, into `out`, padded and dealt out to phases. Padding is not touched."""
    if single(g):
        rows = np.arange(first, first + images)
        columns_of(x.reshape(-1, g.channels), rows, g.source_row, np.empty(g.source_row, np.int64), out)
        return
    for c in range(g.channels):
        for n in range(images):
            for y in range(g.height):
                line, phase_y = divmod(y + g.top, g.down)
                begin = (n * g.lines + line) * g.line
                there = (((first + n) * g.channels + c) * g.height + y) * g.width
                if g.across == 1:
                    move(x, there, out, (c * g.down + phase_y) * g.source_row + begin + g.left, g.width, 0.0)
                else:
                    for i in range(g.width):
                        place, phase_x = divmod(i + g.left, g.across)
                        plane = (c * g.down + phase_y) * g.across + phase_x
                        out[plane * g.source_row + begin + place] = x[there + i]


@compiled
def col2im(laid: Floats, first: int, images: int, g: Any, out: Floats) -> None:
    """Take the gradients of some images out of `laid`, into `out`, flat: the way back of `im2col`."""
    if single(g):
        turn_back(laid, g.back, first, images, g.channels, out)
        return
    for c in range(g.channels):
        for n in range(images):
            for y in range(g.height):
                line, phase_y = divmod(y + g.top, g.down)
                begin = (n * g.lines + line) * g.line
                there = (((first + n) * g.channels + c) * g.height + y) * g.width
                if g.across == 1:
                    move(laid, (c * g.down + phase_y) * g.back + begin + g.left, out, there, g.width, 0.0)
                else:
                    for i in range(g.width):
                        place, phase_x = divmod(i + g.left, g.across)
                        plane = (c * g.down + phase_y) * g.across + phase_x
                        out[there + i] = laid[plane * g.back + begin + place]


@compiled
def turn_back(laid: Floats, row: int, first: int, images: int, channels: int, out: Floats) -> None:
    """out[(first + n) · channels + c] = laid[c · row + n]: columns become examples again."""
    places = np.empty(LANES, np.int64)
    for begin in range(0, channels, LANES):
        whole = begin + LANES <= channels
        for i in range(LANES):
            places[i] = (begin + i) * row
        for n in range(0, images, LANES):
            if whole and n + LANES <= images:
                transpose(laid, places, 0, n, out, (first + n) * channels + begin, channels)
            else:
                for m in range(n, min(n + LANES, images)):
                    for c in range(begin, min(begin + LANES, channels)):
                        out[(first + m) * channels + c] = laid[c * row + m]


@compiled
def convolve(x: Floats, count: int, values: Floats, bias: Floats, kernel: Any, g: Any, out: Floats) -> None:
    """out = x ∗ values + bias, for `count` images, flat. `bias` is empty where there is none."""
    source = np.zeros(g.channels * g.down * g.across * g.source_row, np.float32)
    sums = np.empty(g.outputs * g.span, np.float32)
    for first in range(0, count, g.together):
        images = min(g.together, count - first)
        im2col(x, first, images, g, source)
        sparse_times_dense(values, kernel.columns, kernel.bounds, g.outputs, 1, source, g.span, sums)
        if single(g):
            if bias.size:
                for o in range(g.outputs):
                    move(sums, o * g.span, sums, o * g.span, images, bias[o])
            turn_back(sums, g.span, first, images, g.outputs, out)
            continue
        for o in range(g.outputs):
            plus = bias[o] if bias.size else np.float32(0)
            for n in range(images):
                for y in range(g.out_height):
                    begin = o * g.span + (n * g.lines + y) * g.line
                    there = (((first + n) * g.outputs + o) * g.out_height + y) * g.out_width
                    move(sums, begin, out, there, g.out_width, plus)


@compiled
def convolve_back(
    x: Floats, count: int, values: Floats, kernel: Any, g: Any, gradient: Floats, of_values: Floats, of_x: Floats
) -> None:
    """From the gradient of the outputs to those of the values, and of the inputs unless `of_x` is empty."""
    planes = g.channels * g.down * g.across
    source = np.zeros(planes * g.source_row, np.float32)
    left = np.zeros(g.outputs * g.grad_row, np.float32)
    sums = np.empty(planes * g.back if of_x.size else 0, np.float32)
    turned = np.empty(values.size, np.float32)
    take(values, kernel.back_places, turned)
    of_values[:] = 0
    for first in range(0, count, g.together):
        images = min(g.together, count - first)
        if images < g.together:
            left[:] = 0  # what was there before must not count again
        im2col(x, first, images, g, source)
        for o in range(g.outputs):
            for n in range(images):
                for y in range(g.out_height):
                    place = o * g.grad_row + g.guard + (n * g.lines + y) * g.line
                    there = (((first + n) * g.outputs + o) * g.out_height + y) * g.out_width
                    move(gradient, there, left, place, g.out_width, 0.0)
        sampled_product(
            kernel.columns, kernel.bounds, g.outputs, 1, left[g.guard :], g.grad_row, source, g.span, of_values
        )
        if of_x.size:
            sparse_times_dense(turned, kernel.back_columns, kernel.back_bounds, planes, 1, left, g.back, sums)
            col2im(sums, first, images, g, of_x)
