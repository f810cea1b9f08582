"""Inference: a whole sparse network as one compiled function, `run`.

Activations lie in one flat array, the workspace. Pixel (c, y, x) of image n of a batch of N is at
`(offset + c · plane + y · line + x) · N + n`: the images lie side by side, so that one weight is multiplied with a
contiguous stream of N times as many numbers as a line has pixels. The zeros around an image are the padding of the
convolutions that read it: a weight finds its inputs at the same distance from every output, and nothing is copied
between layers. With one image (N = 1) the streams run along the pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from tombola.kernels.compiled import compiled
from tombola.kernels.images import Table, clear_padding, pack
from tombola.kernels.pooling import pool
from tombola.kernels.products import Floats, Indices, dense_product, sparse_product
from tombola.kernels.single_products import dense_stream, sparse_stream
from tombola.kernels.vectors import LANES, floats_at

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
def max_pool_step(step: Any, workspace: Floats, n: int) -> None:
    """Compute a max pooling. A window without pixels gives -inf."""
    top, left = step[INNER], step[FIRST]
    place = 0, step[IN] + top * step[IN_LINE] + left, step[IN_PLANE], step[IN_LINE]
    out = 0, step[OUT], step[OUT_PLANE], step[OUT_LINE]
    window = (
        step[KERNEL_H], step[KERNEL_W], step[STRIDE_H], step[STRIDE_W], step[DILATION_H], step[DILATION_W], top, left
    )  # fmt: skip
    in_size, out_size = (step[IN_HEIGHT], step[IN_WIDTH]), (step[ROWS], step[HEIGHT], step[WIDTH])
    pool(workspace, n, place, in_size, out, out_size, window, False, np.float32(-np.inf))


@compiled
def read_outputs(workspace: Floats, places: Table, n: int, begin: int, images: int, out: Floats) -> None:
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
    x = carray(floats_at(address), (end * size,))
    starts = np.empty(n, np.int64)
    for first in range(begin, end, n):
        images = min(n, end - first)
        for b in range(n):
            starts[b] = (first + (b if b < images else 0)) * size
        pack(x, starts, runs, n, workspace, 0)
        for i in range(table.shape[0]):
            step = table[i]
            if step[KIND] == MAX_POOL:
                max_pool_step(step, workspace, n)
            elif step[KIND] != INPUT:
                product_step(step, values, columns, bounds, biases, workspace, n)
            place = step[OUT], step[OUT_PLANE], step[OUT_LINE]
            padding = step[PAD_TOP], step[PAD_LEFT], step[PAD_BOTTOM], step[PAD_RIGHT]
            clear_padding(workspace, 0, n, place, (step[ROWS], step[HEIGHT], step[WIDTH]), padding)
        read_outputs(workspace, places, n, first, images, out)
