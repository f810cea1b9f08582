"""Sparse convolutions and linear layers as sparse products, for a few images at a time.

Images are padded and flattened, so that the weight of a kernel reads, for output position q, input position q plus
the same shift for all q: each kept weight is multiplied with contiguous numbers. With a stride, the positions of a
padded image are first divided into phases, one image for each, in which the same holds. Positions at the ends of
lines that belong to no output are computed too; they are not copied to the outputs, and their gradients are zero. A
linear layer is a convolution of images of one pixel.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tombola.kernels.compiled import compiled
from tombola.kernels.products import (
    Floats,
    Indices,
    examples_to_columns,
    gather,
    sampled_product,
    sparse_times_dense,
)
from tombola.kernels.sparsity_pattern import SparsityPattern, grouped
from tombola.kernels.vectors import LANES, add, load, splat, store, transpose

CHUNK_POSITIONS = 1024
"""Positions of a channel in a chunk of images, at most, unless a single image has more."""


class Geometry(NamedTuple):
    """The sizes of a convolution of contiguous inputs of shape (images, channels, height, width)."""

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
    """Size of a padded image, or of each of its down × across phases."""
    outputs: int
    out_height: int
    out_width: int
    chunk: int
    """Images that are padded and multiplied at a time."""
    guard: int
    """The largest shift."""
    span: int
    """Positions of a channel that outputs are computed at: a multiple of 64."""
    back: int
    """Positions of a channel that input gradients are computed at: a multiple of 64."""
    source_row: int
    """Distance between channels of padded inputs."""
    grad_row: int
    """Distance between channels of padded output gradients, which have a guard of zeros in front."""


class KernelIndices(NamedTuple):
    """The sparse matrices of a convolution, forward and backward, in the form of `products`."""

    columns: Indices
    bounds: Indices
    back_columns: Indices
    back_bounds: Indices
    back_places: Indices


class ConvolutionOptions(NamedTuple):
    """Kernel size, stride, padding, dilation and groups of a layer; the defaults are those of a linear layer."""

    size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Top, bottom, left and right."""
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


def convolution_geometry(
    options: ConvolutionOptions, outputs: int, images: int, channels: int, height: int, width: int
) -> Geometry:
    """The sizes of a convolution of images of shape (channels, height, width) to `outputs` channels."""
    (kernel_h, kernel_w), (down, across), (dilation_h, dilation_w) = options.size, options.stride, options.dilation
    top, bottom, left, right = options.padding
    tall, wide = height + top + bottom, width + left + right
    out_height = (tall - (kernel_h - 1) * dilation_h - 1) // down + 1
    out_width = (wide - (kernel_w - 1) * dilation_w - 1) // across + 1
    lines, line = -(-tall // down), -(-wide // across)
    image = lines * line
    chunk = max(1, min(images, CHUNK_POSITIONS // image))
    guard = (kernel_h - 1) * dilation_h // down * line + (kernel_w - 1) * dilation_w // across
    span = _to_64((chunk - 1) * image + (out_height - 1) * line + out_width)
    back = _to_64(chunk * image)
    return Geometry(
        *(channels, height, width, top, left, down, across, lines, line, outputs, out_height, out_width, chunk),
        guard=guard,
        span=span,
        back=back,
        source_row=max(back, span + guard),
        grad_row=guard + max(back, span),
    )


def kernel_indices(pattern: SparsityPattern, options: ConvolutionOptions, geometry: Geometry) -> KernelIndices:
    """Where the weights of `pattern`, a matrix of (outputs, inputs of a group · kernel size), read their inputs."""
    (kernel_h, kernel_w), g = options.size, geometry
    per_group = g.channels // options.groups
    row, column = np.divmod(pattern.order, per_group * kernel_h * kernel_w)
    channel, y, x = np.unravel_index(column, (per_group, kernel_h, kernel_w))
    channel = channel + row // (g.outputs // options.groups) * per_group
    (shift_y, phase_y), (shift_x, phase_x) = (
        np.divmod(y * options.dilation[0], g.down),
        np.divmod(x * options.dilation[1], g.across),
    )
    plane = (channel * g.down + phase_y) * g.across + phase_x
    shift = shift_y * g.line + shift_x
    places, back_bounds = grouped(plane, g.channels * g.down * g.across)
    return KernelIndices(
        columns=(plane * g.source_row + shift).astype(np.int32),
        bounds=pattern.bounds,
        back_columns=(row * g.grad_row + g.guard - shift)[places].astype(np.int32),
        back_bounds=back_bounds,
        back_places=places,
    )


def _to_64(size: int) -> int:
    return -(-size // 64) * 64


@compiled
def copy_and_add(source: Floats, begin: int, target: Floats, place: int, count: int, plus: float) -> None:
    """target[place:place + count] = source[begin:begin + count] + plus."""
    vectors = count // LANES * LANES
    addend = splat(np.float32(plus))
    for t in range(0, vectors, LANES):
        store(target, place + t, add(load(source, begin + t), addend))
    for t in range(vectors, count):
        target[place + t] = source[begin + t] + np.float32(plus)


@compiled
def is_linear(g: Any) -> bool:
    """Whether images have one pixel and no padding, as in linear layers: then padding them is a transposition."""
    return bool(g.lines * g.line * g.down * g.across == 1)


@compiled
def pad_images(x: Floats, first: int, images: int, g: Any, out: Floats) -> None:
    """Copy some images of `x`, flat, to `out`, padded and divided into phases. The padding is not written."""
    if is_linear(g):
        rows = np.arange(first, first + images)
        examples_to_columns(x.reshape(-1, g.channels), rows, g.source_row, np.empty(g.source_row, np.int64), out)
    else:
        copy_images(x, first, images, g, out, g.source_row, False)


@compiled
def unpad_images(padded: Floats, first: int, images: int, g: Any, out: Floats) -> None:
    """Copy the gradients of some images from `padded` to `out`, flat: the inverse of `pad_images`."""
    if is_linear(g):
        columns_to_examples(padded, g.back, first, images, g.channels, out)
    else:
        copy_images(out, first, images, g, padded, g.back, True)


@compiled
def copy_images(x: Floats, first: int, images: int, g: Any, padded: Floats, pitch: int, unpad: bool) -> None:
    """Copy images from `x` to `padded`, whose channels are `pitch` apart, or back."""
    for c in range(g.channels):
        for n in range(images):
            for y in range(g.height):
                line, phase_y = divmod(y + g.top, g.down)
                begin = (n * g.lines + line) * g.line
                pixel = (((first + n) * g.channels + c) * g.height + y) * g.width
                if g.across == 1:
                    place = (c * g.down + phase_y) * pitch + begin + g.left
                    if unpad:
                        copy_and_add(padded, place, x, pixel, g.width, 0.0)
                    else:
                        copy_and_add(x, pixel, padded, place, g.width, 0.0)
                    continue
                for i in range(g.width):
                    column, phase_x = divmod(i + g.left, g.across)
                    place = ((c * g.down + phase_y) * g.across + phase_x) * pitch + begin + column
                    if unpad:
                        x[pixel + i] = padded[place]
                    else:
                        padded[place] = x[pixel + i]


@compiled
def columns_to_examples(columns: Floats, pitch: int, first: int, images: int, channels: int, out: Floats) -> None:
    """out[(first + n) · channels + c] = columns[c · pitch + n]: the inverse of `examples_to_columns`."""
    starts = np.empty(LANES, np.int64)
    for begin in range(0, channels, LANES):
        whole = begin + LANES <= channels
        for i in range(LANES):
            starts[i] = (begin + i) * pitch
        for n in range(0, images, LANES):
            if whole and n + LANES <= images:
                transpose(columns, starts, 0, n, out, (first + n) * channels + begin, channels)
            else:
                for m in range(n, min(n + LANES, images)):
                    for c in range(begin, min(begin + LANES, channels)):
                        out[(first + m) * channels + c] = columns[c * pitch + m]


@compiled
def convolve(x: Floats, count: int, values: Floats, bias: Floats, indices: Any, g: Any, out: Floats) -> None:
    """out = x ∗ values + bias, for `count` images, all flat; `bias` may be empty."""
    source = np.zeros(g.channels * g.down * g.across * g.source_row, np.float32)
    sums = np.empty(g.outputs * g.span, np.float32)
    for first in range(0, count, g.chunk):
        images = min(g.chunk, count - first)
        pad_images(x, first, images, g, source)
        sparse_times_dense(values, indices.columns, indices.bounds, g.outputs, 1, source, g.span, sums)
        if is_linear(g):
            if bias.size:
                for o in range(g.outputs):
                    copy_and_add(sums, o * g.span, sums, o * g.span, images, bias[o])
            columns_to_examples(sums, g.span, first, images, g.outputs, out)
            continue
        for o in range(g.outputs):
            plus = bias[o] if bias.size else np.float32(0)
            for n in range(images):
                for y in range(g.out_height):
                    begin = o * g.span + (n * g.lines + y) * g.line
                    pixel = (((first + n) * g.outputs + o) * g.out_height + y) * g.out_width
                    copy_and_add(sums, begin, out, pixel, g.out_width, plus)


@compiled
def convolve_back(
    x: Floats, count: int, values: Floats, indices: Any, g: Any, gradient: Floats, of_values: Floats, of_x: Floats
) -> None:
    """The gradients of the values and, unless `of_x` is empty, of the inputs, from that of the outputs."""
    planes = g.channels * g.down * g.across
    source = np.zeros(planes * g.source_row, np.float32)
    left = np.zeros(g.outputs * g.grad_row, np.float32)
    sums = np.empty(planes * g.back if of_x.size else 0, np.float32)
    transposed = np.empty(values.size, np.float32)
    gather(values, indices.back_places, transposed)
    of_values[:] = 0
    for first in range(0, count, g.chunk):
        images = min(g.chunk, count - first)
        if images < g.chunk:
            left[:] = 0  # clears the gradients of the previous chunk
        pad_images(x, first, images, g, source)
        for o in range(g.outputs):
            for n in range(images):
                for y in range(g.out_height):
                    place = o * g.grad_row + g.guard + (n * g.lines + y) * g.line
                    pixel = (((first + n) * g.outputs + o) * g.out_height + y) * g.out_width
                    copy_and_add(gradient, pixel, left, place, g.out_width, 0.0)
        sampled_product(
            indices.columns, indices.bounds, g.outputs, 1, left[g.guard :], g.grad_row, source, g.span, of_values
        )
        if of_x.size:
            sparse_times_dense(transposed, indices.back_columns, indices.back_bounds, planes, 1, left, g.back, sums)
            unpad_images(sums, first, images, g, of_x)
