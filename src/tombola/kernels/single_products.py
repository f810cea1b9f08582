"""Products for a single example, whose streams run along pixels and have any length: what whole vectors leave over is
computed by a vector that overlaps the one before, or pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np

from tombola.kernels.compiled import compiled
from tombola.kernels.products import Floats, Indices, dense_product, sparse_product
from tombola.kernels.vectors import LANES, at, fma, fma_one, load, splat, total


@compiled
def sparse_stream(
    values: Floats, columns: Indices, bounds: Indices, biases: Floats, minimum: Any, source: Floats, base: int,
    width: int, out: Floats, offset: int, pitch: int, addend: Floats, addend_pitch: int, addend_base: int,
) -> None:  # fmt: skip
    """Compute `sparse_product` for `width` pixels of one example, in one block of columns.

    Outputs may be computed twice, so that `addend` must not be the place of `out`.
    """
    rows = bounds.size - 1
    t, vectors = 0, width // LANES
    while t < width >= LANES:
        plus = addend_base + t if addend_base >= 0 else -1
        sparse_product(
            values, columns, bounds, rows, biases, minimum, source, base + t, 1, LANES, vectors, out, offset + t,
            pitch, LANES, addend, addend_pitch, plus, out, -1, 0, 0,
        )  # fmt: skip
        t, vectors = (width - LANES if t == 0 and width % LANES else width), 1
    for t in range(width if width < LANES else 0):
        for r in range(rows):
            i, end = int(bounds[r]), int(bounds[r + 1])
            s0, s1, s2, s3 = biases[r], np.float32(0), np.float32(0), np.float32(0)
            while i + 4 <= end:  # four independent sums hide the latency of an addition
                s0 = fma_one(at(values, i), at(source, base + t + int(at(columns, i))), s0)
                s1 = fma_one(at(values, i + 1), at(source, base + t + int(at(columns, i + 1))), s1)
                s2 = fma_one(at(values, i + 2), at(source, base + t + int(at(columns, i + 2))), s2)
                s3 = fma_one(at(values, i + 3), at(source, base + t + int(at(columns, i + 3))), s3)
                i += 4
            while i < end:
                s0 = fma_one(at(values, i), at(source, base + t + int(at(columns, i))), s0)
                i += 1
            result = (s0 + s1) + (s2 + s3)
            if addend_base >= 0:
                result += addend[addend_base + r * addend_pitch + t]
            out[offset + r * pitch + t] = minimum if result < minimum else result


@compiled
def dense_stream(
    values: Floats, first: int, places: Indices, columns: Indices, biases: Floats, minimum: Any, source: Floats,
    base: int, width: int, out: Floats, offset: int, pitch: int, addend: Floats, addend_pitch: int, addend_base: int,
) -> None:  # fmt: skip
    """Compute `dense_product` for `width` pixels of one example, with the weights of a row next to each other.

    Outputs may be computed twice, so that `addend` must not be the place of `out`.
    """
    rows, inner = biases.size, columns.size
    t, vectors = 0, width // LANES
    while t < width >= LANES:
        plus = addend_base + t if addend_base >= 0 else -1
        dense_product(
            values, first, inner, places, columns, rows, biases, minimum, source, base + t, 1, LANES, vectors, out,
            offset + t, pitch, LANES, addend, addend_pitch, plus, out, -1, 0, 0,
        )  # fmt: skip
        t, vectors = (width - LANES if t == 0 and width % LANES else width), 1
    gathered = np.empty(inner if width < LANES else 0, np.float32)
    for t in range(width if width < LANES else 0):
        for i in range(inner):
            gathered[i] = source[base + t + int(columns[i])]
        for r in range(rows):
            a, i = splat(np.float32(0)), 0
            while i + LANES <= inner:
                a = fma(load(values, first + r * inner + i), load(gathered, i), a)
                i += LANES
            result = biases[r] + total(a)
            while i < inner:
                result = fma_one(values[first + r * inner + i], gathered[i], result)
                i += 1
            if addend_base >= 0:
                result += addend[addend_base + r * addend_pitch + t]
            out[offset + r * pitch + t] = minimum if result < minimum else result
