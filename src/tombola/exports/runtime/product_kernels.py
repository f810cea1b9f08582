"""Product kernels: rows of sparse or dense weights times many inputs side by side."""

from __future__ import annotations

from typing import Any

import numpy as np

from tombola.kernels.compiled import compiled
from tombola.kernels.products import Floats, Indices
from tombola.kernels.vectors import LANES, add, at, fma, fma_one, larger, load, splat, store, total


@compiled
def sparse_product(
    values: Floats, columns: Indices, bounds: Indices, biases: Floats, minimum: Any, source: Floats,
    base: int, n: int, width: int, out: Floats, offset: int, pitch: int, addend: int, addend_pitch: int,
) -> None:  # fmt: skip
    """Multiply sparse rows of weights with `width` entries, t, of the inputs, for each row r:

    out[offset + r · pitch + t] = max(minimum, biases[r] + Σ values[k] · source[base + columns[k] · n + t] +
    source[addend + r · addend_pitch + t]), the last summand only if `addend` is not negative.

    The sums of 64 entries stay in registers until a row is done. A remainder shorter than a vector is computed by a
    vector that overlaps the one before, or entry by entry, which happens only if n is 1.
    """
    rows, minimums = bounds.size - 1, splat(minimum)
    t = 0
    while t + 64 <= width:
        for r in range(rows):
            a = b = c = d = splat(biases[r])
            for k in range(int(bounds[r]), int(bounds[r + 1])):
                value, position = splat(at(values, k)), base + int(at(columns, k)) * n + t
                a = fma(value, load(source, position), a)
                b = fma(value, load(source, position + 16), b)
                c = fma(value, load(source, position + 32), c)
                d = fma(value, load(source, position + 48), d)
            if addend >= 0:
                position = addend + r * addend_pitch + t
                a, b = add(a, load(source, position)), add(b, load(source, position + 16))
                c, d = add(c, load(source, position + 32)), add(d, load(source, position + 48))
            position = offset + r * pitch + t
            store(out, position, larger(a, minimums))
            store(out, position + 16, larger(b, minimums))
            store(out, position + 32, larger(c, minimums))
            store(out, position + 48, larger(d, minimums))
        t += 64
    while t < width >= LANES:
        t = min(t, width - LANES)
        for r in range(rows):
            a = splat(biases[r])
            for k in range(int(bounds[r]), int(bounds[r + 1])):
                a = fma(splat(at(values, k)), load(source, base + int(at(columns, k)) * n + t), a)
            if addend >= 0:
                a = add(a, load(source, addend + r * addend_pitch + t))
            store(out, offset + r * pitch + t, larger(a, minimums))
        t += LANES
    while t < width:
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
            if addend >= 0:
                result += source[addend + r * addend_pitch + t]
            out[offset + r * pitch + t] = minimum if result < minimum else result
        t += 1


@compiled
def dense_row(
    values: Floats, first: int, columns: Indices, bias: float, minimum: Any, source: Floats,
    base: int, n: int, out: Floats, offset: int, addend: int,
) -> None:  # fmt: skip
    """Compute 16 entries of one row of `dense_product`."""
    a = splat(bias)
    for i in range(columns.size):
        a = fma(splat(at(values, first + i)), load(source, base + int(at(columns, i)) * n), a)
    if addend >= 0:
        a = add(a, load(source, addend))
    store(out, offset, larger(a, splat(minimum)))


@compiled
def dense_product(
    values: Floats, first: int, columns: Indices, biases: Floats, minimum: Any, source: Floats,
    base: int, n: int, width: int, out: Floats, offset: int, pitch: int, addend: int, addend_pitch: int,
) -> None:  # fmt: skip
    """Compute `sparse_product` with a weight in each of `columns` for every row: those of row r begin at
    `values[first + r · columns.size]`.

    Two rows share each load of inputs. The inputs of a single example are gathered first.
    """
    rows, inner, minimums = biases.size, columns.size, splat(minimum)
    t = 0
    while t + 32 <= width:
        r = 0
        while r + 2 <= rows:
            a = b = splat(biases[r])
            c = d = splat(biases[r + 1])
            one, other = first + r * inner, first + (r + 1) * inner
            for i in range(inner):
                position = base + int(at(columns, i)) * n + t
                left, right = load(source, position), load(source, position + 16)
                value = splat(at(values, one + i))
                a, b = fma(value, left, a), fma(value, right, b)
                value = splat(at(values, other + i))
                c, d = fma(value, left, c), fma(value, right, d)
            if addend >= 0:
                position = addend + r * addend_pitch + t
                a, b = add(a, load(source, position)), add(b, load(source, position + 16))
                position += addend_pitch
                c, d = add(c, load(source, position)), add(d, load(source, position + 16))
            position = offset + r * pitch + t
            store(out, position, larger(a, minimums))
            store(out, position + 16, larger(b, minimums))
            store(out, position + pitch, larger(c, minimums))
            store(out, position + pitch + 16, larger(d, minimums))
            r += 2
        if r < rows:
            for lane in range(t, t + 32, LANES):
                addend_at = addend + r * addend_pitch + lane if addend >= 0 else -1
                here, to = base + lane, offset + r * pitch + lane
                dense_row(values, first + r * inner, columns, biases[r], minimum, source, here, n, out, to, addend_at)
        t += 32
    while t < width >= LANES:
        t = min(t, width - LANES)
        for r in range(rows):
            addend_at = addend + r * addend_pitch + t if addend >= 0 else -1
            here, to = base + t, offset + r * pitch + t
            dense_row(values, first + r * inner, columns, biases[r], minimum, source, here, n, out, to, addend_at)
        t += LANES
    if t < width:
        gathered = np.empty(inner, np.float32)
    while t < width:
        for i in range(inner):
            gathered[i] = source[base + t + int(columns[i]) * n]
        for r in range(rows):
            a, i = splat(np.float32(0)), 0
            while i + LANES <= inner:
                a = fma(load(values, first + r * inner + i), load(gathered, i), a)
                i += LANES
            result = biases[r] + total(a)
            while i < inner:
                result = fma_one(values[first + r * inner + i], gathered[i], result)
                i += 1
            if addend >= 0:
                result += source[addend + r * addend_pitch + t]
            out[offset + r * pitch + t] = minimum if result < minimum else result
        t += 1
