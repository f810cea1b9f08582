"""Step kernels: a whole sparse network as one compiled function, `run`.

Activations lie in one flat array, the workspace. Pixel (c, y, x) of image n of a batch of N is at
`(offset + c · plane + y · line + x) · N + n`: the images lie side by side, so that one weight is multiplied with a
contiguous stream of N times as many numbers as a line has pixels. The zeros around an image are the padding of the
convolutions that read it: a weight finds its inputs at the same distance from every output, and nothing is copied
between layers. With one image (N = 1) the streams run along the pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import carray

from tombola.kernels.compiled import compiled
from tombola.kernels.products import Floats, Indices, dense_product, sparse_product
from tombola.kernels.single_products import dense_stream, sparse_stream
from tombola.kernels.vectors import LANES, floats_at, larger, load, splat, store, subtract, transpose

Table = npt.NDArray[np.int64]

FIELDS = range(30)
(
    KIND, IN, IN_PLANE, IN_LINE, OUT, OUT_PLANE, OUT_LINE, ROWS, HEIGHT, WIDTH,
    PAD_TOP, PAD_LEFT, PAD_BOTTOM, PAD_RIGHT, STRIDE_H, STRIDE_W, RELU, BOUND, BIAS, FIRST,
    INNER, ADDEND, ADDEND_PLANE, ADDEND_LINE, KERNEL_H, KERNEL_W, DILATION_H, DILATION_W,
    IN_HEIGHT, IN_WIDTH,
) = FIELDS  # fmt: skip
"""The columns of a program's table, which has a row for each step. Offsets and distances are in pixels.

- IN, OUT, ADDEND: where the first output pixel is read from, written to, and what is added to it (-1: nothing).
- …_PLANE, …_LINE: the distances of channels and of lines there.
- ROWS, HEIGHT, WIDTH: the outputs, ROWS channels; PAD_…: the lines and columns of zeros around them.
- BIAS: the first bias. BOUND, of a sparse product: its first bound.
- FIRST, BOUND, of a dense product: its first weight, of ROWS × INNER, and its first column, of INNER for all rows.
- KERNEL_…, DILATION_…, of a pooling: its window, which begins at IN, INNER lines and FIRST columns outside of the
  image of IN_HEIGHT × IN_WIDTH pixels.
"""

SPARSE, DENSE, MAX_POOL, INPUT = range(4)
"""Kinds of steps: products with sparse and dense weights, max pooling, and the inputs, for which nothing is done."""


@compiled
def product_step(
    step: Any, values: Floats, columns: Indices, bounds: Indices, biases: Floats, workspace: Floats, n: int
) -> None:
    """Compute a product: for whole images at once, for lines, or for single pixels, as the strides allow."""
    dense, inner, rows = step[KIND] == DENSE, step[INNER], step[ROWS]
    own = bounds[0:0] if dense else bounds[step[BOUND] : step[BOUND] + rows + 1]
    shared = columns[step[BOUND] : step[BOUND] + inner] if dense else columns[0:0]
    step_biases = biases[step[BIAS] : step[BIAS] + rows]
    minimum = np.float32(0) if step[RELU] else np.float32(-np.inf)
    pitch, addend_pitch = step[OUT_PLANE] * n, step[ADDEND_PLANE] * n
    height, width, across, hop = step[HEIGHT], step[WIDTH], 1, LANES
    aligned = step[IN_LINE] == step[OUT_LINE] and (step[ADDEND] < 0 or step[ADDEND_LINE] == step[OUT_LINE])
    if step[STRIDE_W] > 1 and n == LANES:
        hop = step[STRIDE_W] * LANES
    elif step[STRIDE_W] > 1:
        width, across = 1, step[WIDTH]
    elif n == 1 and step[STRIDE_H] == 1 and aligned:
        width, height = (height - 1) * step[OUT_LINE] + width, 1
    places = np.arange(inner if dense and width * n >= LANES else 0).astype(np.int32)
    for y in range(height):
        for x in range(across):
            base = (step[IN] + y * step[STRIDE_H] * step[IN_LINE] + x * step[STRIDE_W]) * n
            offset = (step[OUT] + y * step[OUT_LINE] + x) * n
            addend = (step[ADDEND] + y * step[ADDEND_LINE] + x) * n if step[ADDEND] >= 0 else -1
            if n == 1:
                single = workspace, base, width, workspace, offset, pitch, workspace, addend_pitch, addend
                if dense:
                    dense_stream(values, step[FIRST], places, shared, step_biases, minimum, *single)
                else:
                    sparse_stream(values, columns, own, step_biases, minimum, *single)
                continue
            reads = workspace, base, n, hop, width * n // LANES
            writes = workspace, offset, pitch, LANES, workspace, addend_pitch, addend, workspace, -1, 0, 0
            if dense:
                weights = values, step[FIRST], inner, places, shared
                dense_product(*weights, rows, step_biases, minimum, *reads, *writes)
            else:
                sparse_product(values, columns, own, rows, step_biases, minimum, *reads, *writes)


@compiled
def valid_range(first: int, pitch: int, size: int, count: int) -> tuple[int, int]:
    """Begin and end of those of `count` positions first, first + pitch, ... that are from 0 to `size` - 1."""
    return max(0, -(first // pitch)), min(count, -((first - size) // pitch))


@compiled
def max_pool_step(step: Any, workspace: Floats, n: int) -> None:
    """Compute a max pooling. Pixels outside the image do not count; a window without pixels gives -inf."""
    down, across = step[DILATION_H] * step[IN_LINE], step[DILATION_W]
    for c in range(step[ROWS]):
        image = step[IN] + c * step[IN_PLANE] + step[INNER] * step[IN_LINE] + step[FIRST]
        for y in range(step[HEIGHT]):
            top = y * step[STRIDE_H] - step[INNER]
            first_line, end_line = valid_range(top, step[DILATION_H], step[IN_HEIGHT], step[KERNEL_H])
            for x in range(step[WIDTH]):
                left = x * step[STRIDE_W] - step[FIRST]
                first_column, end_column = valid_range(left, step[DILATION_W], step[IN_WIDTH], step[KERNEL_W])
                corner = image + top * step[IN_LINE] + left
                offset = step[OUT] + c * step[OUT_PLANE] + y * step[OUT_LINE] + x
                if n == 1:
                    maximum = np.float32(-np.inf)
                    for i in range(first_line, end_line):
                        for j in range(first_column, end_column):
                            new = workspace[corner + i * down + j * across]
                            maximum = new if new > maximum or np.isnan(new) else maximum
                    workspace[offset] = maximum
                    continue
                for t in range(0, n, LANES):
                    maximum = nan = splat(np.float32(-np.inf))
                    for i in range(first_line, end_line):
                        for j in range(first_column, end_column):
                            value = load(workspace, (corner + i * down + j * across) * n + t)
                            maximum = larger(value, maximum)
                            nan = subtract(nan, larger(value, splat(np.float32(np.inf))))  # -inf until one is NaN
                    store(workspace, offset * n + t, larger(nan, maximum))


@compiled
def clear_padding(step: Any, workspace: Floats, n: int) -> None:
    """Set the zeros around the outputs of a step."""
    above, below = step[PAD_TOP] * step[OUT_LINE], step[PAD_BOTTOM] * step[OUT_LINE]
    between = step[PAD_LEFT] + step[PAD_RIGHT]
    if above + below + between == 0:
        return
    for c in range(step[ROWS]):
        first = step[OUT] + c * step[OUT_PLANE] - step[PAD_LEFT]
        workspace[(first - above) * n : (first + step[PAD_LEFT]) * n] = 0
        end = first + step[HEIGHT] * step[OUT_LINE]
        for y in range(1, step[HEIGHT]):
            line = first + y * step[OUT_LINE]
            workspace[(line - step[PAD_RIGHT]) * n : (line + step[PAD_LEFT]) * n] = 0
        workspace[(end - step[PAD_RIGHT]) * n : (end + below) * n] = 0


@compiled
def pack(x: Floats, begin: int, images: int, runs: Table, workspace: Floats, n: int) -> None:
    """Copy images, the rows of `x`, into the workspace.

    A row of `runs` is a run of pixels: its offset in an image, its offset in the workspace, and its length.
    """
    size = x.shape[1]
    source = x.reshape(x.size)
    if n == 1:
        for i in range(runs.shape[0]):
            first = begin * size + runs[i, 0]
            workspace[runs[i, 1] : runs[i, 1] + runs[i, 2]] = source[first : first + runs[i, 2]]
        return
    places = np.empty(n, np.int64)
    for b in range(n):
        places[b] = (begin + (b if b < images else 0)) * size
    for i in range(runs.shape[0]):
        first, offset, length = runs[i, 0], runs[i, 1], runs[i, 2]
        for b in range(0, n, LANES):
            p = 0
            while p < length and length >= LANES:
                p = min(p, length - LANES)
                transpose(source, places, b, first + p, workspace, (offset + p) * n + b, n)
                p += LANES
            while p < length:
                for lane in range(b, b + LANES):
                    workspace[(offset + p) * n + lane] = source[places[lane] + first + p]
                p += 1


@compiled
def unpack(workspace: Floats, places: Table, n: int, begin: int, images: int, out: Floats) -> None:
    """out[begin + b, u] = workspace[places[u] · n + b]."""
    for b in range(images):
        for u in range(places.size):
            out[begin + b, u] = workspace[places[u] * n + b]


@compiled
def run(
    table: Table, values: Floats, columns: Indices, bounds: Indices, biases: Floats, runs: Table, places: Table,
    address: int, size: int, begin: int, end: int, n: int, workspace: Floats, out: Floats,
) -> None:  # fmt: skip
    """Compute images `begin` to `end`, of `size` numbers each, into the same rows of `out`.

    The images are a contiguous array at `address`: to make an array of a tensor takes longer than to compute one
    example of a small network. `n` images are computed at a time: 1 or a multiple of 16.
    """
    x = carray(floats_at(address), (end, size))
    for first in range(begin, end, n):
        images = min(n, end - first)
        pack(x, first, images, runs, workspace, n)
        for i in range(table.shape[0]):
            step = table[i]
            if step[KIND] == MAX_POOL:
                max_pool_step(step, workspace, n)
            elif step[KIND] != INPUT:
                product_step(step, values, columns, bounds, biases, workspace, n)
            clear_padding(step, workspace, n)
        unpack(workspace, places, n, first, images, out)
