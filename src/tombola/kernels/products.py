"""Products of sparse and dense matrices of weights with streams of vectors, for training and inference.

All arrays are flat. A stream is a number of vectors of 16 float32: vector v begins at `base + v · hop`. A hop of 16
is a contiguous stream; one of 32 is every second pixel of 16 images. Column c of a matrix of weights is multiplied
with the stream that begins `c · n` numbers after `base`, where n is the size of a pixel. A sparse matrix is given by
the segments of `SparsityPattern`: segment s of row `s % rows` has `values[bounds[s]:bounds[s + 1]]` in the same
entries of `columns`. Streams that begin at a multiple of 64 bytes are read faster: see `aligned`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tombola.kernels.compiled import compiled
from tombola.kernels.tiles import (
    DENSE_ROWS,
    DENSE_TILES,
    SAMPLED_DEPTH,
    SPARSE_TILES,
    dense_tile,
    sampled_tile,
    sparse_tile,
)
from tombola.kernels.vectors import LANES, at, transpose

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int32]

COLUMN_BLOCK = 128
"""Columns of a dense matrix that are multiplied at a time, at most: 32 KB for 64 examples, which fit into L1."""

GRADIENT_COLUMNS = 64
"""Columns of the gradient of a dense matrix that are computed at a time."""


@compiled
def largest(sizes: Any, count: int) -> int:
    """The first of descending sizes that is not greater than `count`."""
    for size in sizes:
        if size <= count:
            return int(size)
    return 1


@compiled
def sparse_product(
    values: Floats, columns: Indices, bounds: Indices, rows: int, biases: Floats, minimum: Any, source: Floats,
    base: int, n: int, hop: int, vectors: int, out: Floats, offset: int, pitch: int, out_hop: int, addend: Floats,
    addend_pitch: int, addend_base: int, gate: Floats, gate_base: int, gate_pitch: int, gate_hop: int,
) -> None:  # fmt: skip
    """Multiply sparse rows of weights with a stream. For each row r, vector v of `vectors` and lane:

    out[offset + r · pitch + v · out_hop + lane] = gated(max(minimum, biases[r] +
    Σ values[k] · source[base + columns[k] · n + v · hop + lane] + addend[addend_base + r · addend_pitch + …])).

    `biases` may be empty. With a negative `addend_base` nothing is added; otherwise vectors are `out_hop` apart
    there too, and it may be the same place as `out`. With a `gate_base` that is not negative, the result is 0 where
    gate[gate_base + r · gate_pitch + v · gate_hop + lane] <= 0, as in the gradient of ReLU. The sums of the segments
    of later blocks of columns continue those that earlier ones left in `out`.
    """
    segments = bounds.size - 1
    t = 0
    while t < vectors:
        width = largest(SPARSE_TILES, vectors - t)
        place = base + t * hop
        for block in range(0, segments, rows):
            is_first, is_last = block == 0, block + rows == segments
            least = minimum if is_last else np.float32(-np.inf)
            for r in range(rows):
                k, end = int(at(bounds, block + r)), int(at(bounds, block + r + 1))
                bias = biases[r] if biases.size and is_first else np.float32(0)
                plus = addend_base + r * addend_pitch + t * out_hop if is_first and addend_base >= 0 else -1
                open_ = gate_base + r * gate_pitch + t * gate_hop if is_last and gate_base >= 0 else -1
                target = offset + r * pitch + t * out_hop
                sparse_tile(
                    width, values, columns, k, end, bias, source, place, n, hop, not is_first, out, target, out_hop,
                    addend, plus, least, gate, open_, gate_hop,
                )  # fmt: skip
        t += width


@compiled
def dense_product(
    values: Floats, first: int, row_step: int, places: Indices, columns: Indices, rows: int, biases: Floats,
    minimum: Any, source: Floats, base: int, n: int, hop: int, vectors: int, out: Floats, offset: int, pitch: int,
    out_hop: int, addend: Floats, addend_pitch: int, addend_base: int, gate: Floats, gate_base: int, gate_pitch: int,
    gate_hop: int,
) -> None:  # fmt: skip
    """Compute `sparse_product` with the weight `values[first + r · row_step + places[k]]` for every k of `columns`.

    `row_step` and `places` also express the transpose of a matrix or of a convolution.
    """
    inner = columns.size
    blocks = max(1, -(-inner // COLUMN_BLOCK))
    t = 0
    while t < vectors:
        width = largest(DENSE_TILES, vectors - t)
        place = base + t * hop
        for block in range(blocks):
            is_first, is_last = block == 0, block + 1 == blocks
            least = minimum if is_last else np.float32(-np.inf)
            begin, end = inner * block // blocks, inner * (block + 1) // blocks
            r = 0
            while r < rows:
                height = largest(DENSE_ROWS, rows - r)
                bias = r if biases.size and is_first else -1
                plus = addend_base + r * addend_pitch + t * out_hop if is_first and addend_base >= 0 else -1
                open_ = gate_base + r * gate_pitch + t * gate_hop if is_last and gate_base >= 0 else -1
                dense_tile(
                    height, width, values, first + r * row_step, row_step, places, columns, begin, end, biases, bias,
                    source, place, n, hop, pitch, addend_pitch, gate_pitch, not is_first, out,
                    offset + r * pitch + t * out_hop, out_hop, addend, plus, least, gate, open_, gate_hop,
                )  # fmt: skip
                r += height
        t += width


@compiled
def sampled_product(
    columns: Indices, bounds: Indices, rows: int, left: Floats, left_base: int, left_pitch: int, left_hop: int,
    source: Floats, base: int, n: int, hop: int, vectors: int, out: Floats,
) -> None:  # fmt: skip
    """out[k] += Σ left[left_base + r · left_pitch + v · left_hop + lane] · source[base + columns[k] · n + v · hop +
    lane], over all vectors v and lanes, for each entry k of row r: the gradient of the kept weights only."""
    spans = -(-vectors // SAMPLED_DEPTH)
    for span in range(spans):
        v = vectors * span // spans
        depth = vectors * (span + 1) // spans - v
        here = base + v * hop
        for block in range(0, bounds.size - 1, rows):
            for r in range(rows):
                k, end = int(at(bounds, block + r)), int(at(bounds, block + r + 1))
                place = left_base + r * left_pitch + v * left_hop
                sampled_tile(depth, columns, k, end, left, place, left_hop, source, here, n, hop, out)


@compiled
def dense_gradient(
    places: Indices, columns: Indices, rows: int, first: int, row_step: int, left: Floats, left_base: int,
    left_pitch: int, left_hop: int, source: Floats, base: int, n: int, hop: int, vectors: int, out: Floats,
) -> None:  # fmt: skip
    """out[first + r · row_step + places[k]] += the inner product of `sampled_product`, for all rows r and columns k.

    The streams of some columns at a time are transposed, so that this is a dense product whose sums run over the
    stream.
    """
    steps, numbers = np.empty(COLUMN_BLOCK, np.int32), np.arange(COLUMN_BLOCK).astype(np.int32)
    for t in range(COLUMN_BLOCK):
        steps[t] = t // LANES * left_hop + t % LANES
    transposed, sums = aligned(COLUMN_BLOCK * GRADIENT_COLUMNS), aligned(rows * LANES)
    nothing = np.empty(0, np.float32)
    none = nothing, 0, -1, nothing, -1, 0, 0
    least = np.float32(-np.inf)
    for some in range(0, columns.size, GRADIENT_COLUMNS):
        count = min(GRADIENT_COLUMNS, columns.size - some)
        for v in range(0, vectors, COLUMN_BLOCK // LANES):
            depth = min(COLUMN_BLOCK // LANES, vectors - v)
            transpose_columns(columns[some : some + count], source, base + v * hop, n, hop, depth, transposed, 0)
            reads = left, left_base + v * left_hop, left_pitch, steps[: depth * LANES], numbers[: depth * LANES], rows
            c = 0
            while c < count:
                whole = adjacent(places, some + c, some + count) // LANES
                if whole:
                    to = first + int(places[some + c])
                    dense_product(
                        *reads, nothing, least, transposed, c, GRADIENT_COLUMNS, LANES, whole,
                        out, to, row_step, LANES, out, row_step, to, nothing, -1, 0, 0,
                    )  # fmt: skip
                    c += whole * LANES
                    continue
                dense_product(
                    *reads, nothing, least, transposed, c, GRADIENT_COLUMNS, LANES, 1,
                    sums, 0, LANES, LANES, *none,
                )  # fmt: skip
                for r in range(rows):
                    for i in range(min(LANES, count - c)):
                        out[first + r * row_step + np.intp(places[some + c + i])] += sums[r * LANES + i]
                c += LANES


@compiled
def transpose_columns(
    columns: Indices, source: Floats, base: int, n: int, hop: int, vectors: int, out: Floats, place: int
) -> None:
    """out[place + t · GRADIENT_COLUMNS + c] = number t of the stream of column c, for at most `GRADIENT_COLUMNS`."""
    starts = np.empty(LANES, np.int64)
    for c in range(0, columns.size, LANES):
        for i in range(LANES):
            starts[i] = base + np.intp(columns[min(c + i, columns.size - 1)]) * n
        for v in range(vectors):
            to = place + v * LANES * GRADIENT_COLUMNS + c
            transpose(source, starts, 0, v * hop, out, to, GRADIENT_COLUMNS)


@compiled
def adjacent(places: Indices, begin: int, end: int) -> int:
    """How many of `places[begin:end]` follow each other, from the first."""
    count = 1
    while begin + count < end and places[begin + count] == places[begin] + count:
        count += 1
    return count


@compiled
def aligned(size: int) -> Floats:
    """Zeros that begin at a multiple of 64 bytes: reading a vector that crosses two lines of the cache takes twice as
    long."""
    array = np.zeros(size + LANES, np.float32)
    begin = -(array.ctypes.data // 4) % LANES
    return array[begin : begin + size]


@compiled
def gather(values: Floats, indices: Indices, out: Floats) -> None:
    """out[k] = values[indices[k]]: the values of a sparse matrix in the order of its transpose."""
    for k in range(indices.size):
        out[k] = values[indices[k]]
