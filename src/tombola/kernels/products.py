"""Products of sparse and dense matrices, in time that follows the number of kept weights.

Dense operands have examples along the last axis, so that each weight is multiplied with contiguous numbers of a
batch. They are flat: entry (row, column) is at `row * pitch + column`. A sparse matrix is given by the segments of
`SparsityPattern`: segment s of row `s % rows` has `values[bounds[s]:bounds[s + 1]]` in the same entries of `columns`.
Convolutions are the same products, with positions in padded images as columns and a pitch of 1: see `convolution.py`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tombola.kernels.compiled import compiled
from tombola.kernels.vectors import (
    add,
    fma,
    load,
    multiply,
    sixteen_products,
    splat,
    store,
    total,
    transpose,
)

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int32]


@compiled
def sparse_times_dense(
    values: Floats, columns: Indices, bounds: Indices, rows: int, pitch: int, source: Floats, width: int, out: Floats
) -> None:
    """out[r, t] = Σ values[k] · source[columns[k] · pitch + t], for `width` (a multiple of 16) entries t.

    The sums of a row over 64 examples stay in registers until the end of a segment.
    """
    wide = width // 64 * 64
    for t in range(0, wide, 64):
        for segment in range(bounds.size - 1):
            place = segment % rows * width + t
            if segment < rows:
                a = b = c = d = splat(np.float32(0))
            else:
                a, b, c, d = load(out, place), load(out, place + 16), load(out, place + 32), load(out, place + 48)
            for k in range(bounds[segment], bounds[segment + 1]):
                value, right = splat(values[k]), np.intp(columns[k]) * pitch + t
                a = fma(value, load(source, right), a)
                b = fma(value, load(source, right + 16), b)
                c = fma(value, load(source, right + 32), c)
                d = fma(value, load(source, right + 48), d)
            store(out, place, a)
            store(out, place + 16, b)
            store(out, place + 32, c)
            store(out, place + 48, d)
    for t in range(wide, width, 16):
        for segment in range(bounds.size - 1):
            place = segment % rows * width + t
            a = splat(np.float32(0)) if segment < rows else load(out, place)
            for k in range(bounds[segment], bounds[segment + 1]):
                a = fma(splat(values[k]), load(source, np.intp(columns[k]) * pitch + t), a)
            store(out, place, a)


@compiled
def sampled_product(
    columns: Indices,
    bounds: Indices,
    rows: int,
    pitch: int,
    left: Floats,
    row: int,
    source: Floats,
    width: int,
    out: Floats,
) -> None:
    """out[k] += Σ_t left[r · row + t] · source[columns[k] · pitch + t], for every k of row r: the gradient of the
    kept weights only. t runs over `width` entries, a multiple of 16."""
    wide = width // 64 * 64
    for t in range(0, wide, 64):
        for segment in range(bounds.size - 1):
            place = segment % rows * row + t
            a, b, c, d = load(left, place), load(left, place + 16), load(left, place + 32), load(left, place + 48)
            k, end = int(bounds[segment]), int(bounds[segment + 1])
            while k + 16 <= end:
                sums = sixteen_products(a, b, c, d, source, columns, k, pitch, t)
                store(out, k, add(load(out, k), sums))
                k += 16
            while k < end:
                right = np.intp(columns[k]) * pitch + t
                low = multiply(a, load(source, right))
                high = multiply(b, load(source, right + 16))
                low = fma(c, load(source, right + 32), low)
                high = fma(d, load(source, right + 48), high)
                out[k] += total(add(low, high))
                k += 1
    for t in range(wide, width, 16):
        for segment in range(bounds.size - 1):
            a = load(left, segment % rows * row + t)
            for k in range(bounds[segment], bounds[segment + 1]):
                out[k] += total(multiply(a, load(source, np.intp(columns[k]) * pitch + t)))


@compiled
def gather(values: Floats, indices: Indices, out: Floats) -> None:
    """out[k] = values[indices[k]]: the values of a sparse matrix in the order of its transpose."""
    for k in range(indices.size):
        out[k] = values[indices[k]]


@compiled
def examples_to_columns(
    x: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], width: int, starts: npt.NDArray[np.int64], out: Floats
) -> None:
    """out[f · width + b] = x[rows[b], f]: transposes examples, which are rows of `x`, into columns.

    `width` is a multiple of 16; columns past the last example repeat the first. `starts` is workspace of size
    `width`.
    """
    features = x.shape[1]
    source = x.reshape(x.size)
    for b in range(width):
        starts[b] = rows[b if b < rows.size else 0] * features
    whole = features // 16 * 16
    for b in range(0, width, 16):
        for f in range(0, whole, 16):
            transpose(source, starts, b, f, out, f * width + b, width)
    for f in range(whole, features):
        for b in range(width):
            out[f * width + b] = source[starts[b] + f]
