"""Kernels: a whole sparse network as one compiled function, `run`.

Activations lie in one flat array, the room. A value of `channels` images has pixel (c, y, x) of image n at
`(place + c · plane + y · line + x) · N + n`: the images of a batch lie side by side, so that one weight is one stream
of multiply-adds over them, and a line of pixels is N times as long. Around the pixels there are the zeros that the
convolutions reading them want; so a weight finds its inputs at the same distance from every output, and nothing is
ever laid out anew between layers. With one image (N = 1) the streams run along the pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import carray

from tombola.engines.sparse.compiled import compiled
from tombola.engines.sparse.products import Floats, Indices
from tombola.engines.sparse.vectors import (
    LANES,
    add,
    at,
    floats_at,
    fma,
    fma_one,
    larger,
    load,
    splat,
    store,
    subtract,
    total,
    transpose,
)

Table = npt.NDArray[np.int64]

FIELDS = (
    "KIND", "IN", "IN_PLANE", "IN_LINE", "OUT", "OUT_PLANE", "OUT_LINE", "ROWS", "HEIGHT", "WIDTH",
    "TOP", "LEFT", "BELOW", "RIGHT", "DOWN", "ACROSS", "RELU", "BOUND", "BIAS", "FIRST", "INNER",
    "PLUS", "PLUS_PLANE", "PLUS_LINE", "KERNEL_H", "KERNEL_W", "DILATE_H", "DILATE_W", "IN_HEIGHT", "IN_WIDTH",
)  # fmt: skip
(
    KIND, IN, IN_PLANE, IN_LINE, OUT, OUT_PLANE, OUT_LINE, ROWS, HEIGHT, WIDTH,
    TOP, LEFT, BELOW, RIGHT, DOWN, ACROSS, RELU, BOUND, BIAS, FIRST, INNER,
    PLUS, PLUS_PLANE, PLUS_LINE, KERNEL_H, KERNEL_W, DILATE_H, DILATE_W, IN_HEIGHT, IN_WIDTH,
) = range(len(FIELDS))  # fmt: skip
"""Columns of a program's table, which has a row for each step. Places and distances are in pixels.

IN, OUT and PLUS are the places that the first output pixel reads first, is written to, and adds (-1: nothing is
added); …_PLANE and …_LINE the distances of channels and of lines there. Outputs are ROWS channels of HEIGHT × WIDTH,
with TOP, LEFT, BELOW and RIGHT lines and columns of zeros around them. DOWN and ACROSS are the strides. A sparse
product has its bounds from BOUND, its biases from BIAS; a dense one ROWS × INNER weights from FIRST, and INNER
columns, which its rows share, from BOUND. A pooling's window, of KERNEL_H × KERNEL_W pixels that are DILATE_… apart,
begins at IN, which may be outside the image, of IN_HEIGHT × IN_WIDTH pixels; how far outside is in INNER and FIRST,
lines and columns.
"""

SPARSE, DENSE, LARGEST, INPUT = range(4)
"""Kinds of steps: products with sparse and dense weights, max pooling; the inputs, which are there already."""


@compiled
def stream(
    values: Floats,
    columns: Indices,
    bounds: Indices,
    biases: Floats,
    least: Any,
    source: Floats,
    base: int,
    n: int,
    width: int,
    out: Floats,
    place: int,
    pitch: int,
    plus: int,
    plus_pitch: int,
) -> None:
    """For every row r: out[place + r · pitch + t] = max(least, biases[r] + Σ values[k] · source[base + columns[k] · n
    + t]), for `width` entries t; plus source[plus + r · plus_pitch + t] where `plus` is not negative.

    The sums over 64 entries are held in registers until a row is done. What is left of less than a vector is done
    with a vector that begins sooner, or one by one, which happens only where n is 1.
    """
    rows, lowest = bounds.size - 1, splat(least)
    t = 0
    while t + 64 <= width:
        for r in range(rows):
            a = b = c = d = splat(biases[r])
            for k in range(int(bounds[r]), int(bounds[r + 1])):
                value, there = splat(at(values, k)), base + int(at(columns, k)) * n + t
                a = fma(value, load(source, there), a)
                b = fma(value, load(source, there + 16), b)
                c = fma(value, load(source, there + 32), c)
                d = fma(value, load(source, there + 48), d)
            if plus >= 0:
                there = plus + r * plus_pitch + t
                a, b = add(a, load(source, there)), add(b, load(source, there + 16))
                c, d = add(c, load(source, there + 32)), add(d, load(source, there + 48))
            there = place + r * pitch + t
            store(out, there, larger(a, lowest))
            store(out, there + 16, larger(b, lowest))
            store(out, there + 32, larger(c, lowest))
            store(out, there + 48, larger(d, lowest))
        t += 64
    while t < width >= LANES:
        t = min(t, width - LANES)
        for r in range(rows):
            a = splat(biases[r])
            for k in range(int(bounds[r]), int(bounds[r + 1])):
                a = fma(splat(at(values, k)), load(source, base + int(at(columns, k)) * n + t), a)
            if plus >= 0:
                a = add(a, load(source, plus + r * plus_pitch + t))
            store(out, place + r * pitch + t, larger(a, lowest))
        t += LANES
    while t < width:
        for r in range(rows):
            i, end = int(bounds[r]), int(bounds[r + 1])
            s0, s1, s2, s3 = biases[r], np.float32(0), np.float32(0), np.float32(0)
            while i + 4 <= end:  # four sums, because one would wait for itself
                s0 = fma_one(at(values, i), at(source, base + t + int(at(columns, i))), s0)
                s1 = fma_one(at(values, i + 1), at(source, base + t + int(at(columns, i + 1))), s1)
                s2 = fma_one(at(values, i + 2), at(source, base + t + int(at(columns, i + 2))), s2)
                s3 = fma_one(at(values, i + 3), at(source, base + t + int(at(columns, i + 3))), s3)
                i += 4
            while i < end:
                s0 = fma_one(at(values, i), at(source, base + t + int(at(columns, i))), s0)
                i += 1
            whole = (s0 + s1) + (s2 + s3)
            if plus >= 0:
                whole += source[plus + r * plus_pitch + t]
            out[place + r * pitch + t] = least if whole < least else whole
        t += 1


@compiled
def dense_row(
    values: Floats,
    first: int,
    columns: Indices,
    bias: float,
    least: Any,
    source: Floats,
    base: int,
    n: int,
    out: Floats,
    place: int,
    plus: int,
) -> None:
    """Sixteen entries of one row of `dense_stream`."""
    a = splat(bias)
    for i in range(columns.size):
        a = fma(splat(at(values, first + i)), load(source, base + int(at(columns, i)) * n), a)
    if plus >= 0:
        a = add(a, load(source, plus))
    store(out, place, larger(a, splat(least)))


@compiled
def dense_stream(
    values: Floats,
    first: int,
    columns: Indices,
    biases: Floats,
    least: Any,
    source: Floats,
    base: int,
    n: int,
    width: int,
    out: Floats,
    place: int,
    pitch: int,
    plus: int,
    plus_pitch: int,
) -> None:
    """The same as `stream` where every row has a weight for each of `columns`: row r has its own from
    `values[first + r · columns.size]` on.

    Two rows share what is read of the inputs. One example alone has its inputs gathered first.
    """
    rows, inner, lowest = biases.size, columns.size, splat(least)
    t = 0
    while t + 32 <= width:
        r = 0
        while r + 2 <= rows:
            a = b = splat(biases[r])
            c = d = splat(biases[r + 1])
            one, other = first + r * inner, first + (r + 1) * inner
            for i in range(inner):
                there = base + int(at(columns, i)) * n + t
                left, right = load(source, there), load(source, there + 16)
                value = splat(at(values, one + i))
                a, b = fma(value, left, a), fma(value, right, b)
                value = splat(at(values, other + i))
                c, d = fma(value, left, c), fma(value, right, d)
            if plus >= 0:
                there = plus + r * plus_pitch + t
                a, b = add(a, load(source, there)), add(b, load(source, there + 16))
                there += plus_pitch
                c, d = add(c, load(source, there)), add(d, load(source, there + 16))
            there = place + r * pitch + t
            store(out, there, larger(a, lowest))
            store(out, there + 16, larger(b, lowest))
            store(out, there + pitch, larger(c, lowest))
            store(out, there + pitch + 16, larger(d, lowest))
            r += 2
        if r < rows:
            for lane in range(t, t + 32, LANES):
                more = plus + r * plus_pitch + lane if plus >= 0 else -1
                here, to = base + lane, place + r * pitch + lane
                dense_row(values, first + r * inner, columns, biases[r], least, source, here, n, out, to, more)
        t += 32
    while t < width >= LANES:
        t = min(t, width - LANES)
        for r in range(rows):
            more = plus + r * plus_pitch + t if plus >= 0 else -1
            here, to = base + t, place + r * pitch + t
            dense_row(values, first + r * inner, columns, biases[r], least, source, here, n, out, to, more)
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
            whole = biases[r] + total(a)
            while i < inner:
                whole = fma_one(values[first + r * inner + i], gathered[i], whole)
                i += 1
            if plus >= 0:
                whole += source[plus + r * plus_pitch + t]
            out[place + r * pitch + t] = least if whole < least else whole
        t += 1


@compiled
def product_step(
    step: Any, values: Floats, columns: Indices, bounds: Indices, biases: Floats, room: Floats, n: int
) -> None:
    """A product: of whole images at once, of lines, or of single pixels, as the strides allow."""
    dense = step[KIND] == DENSE
    own = bounds[0:0] if dense else bounds[step[BOUND] : step[BOUND] + step[ROWS] + 1]
    shared = columns[step[BOUND] : step[BOUND] + step[INNER]] if dense else columns[0:0]
    offsets = biases[step[BIAS] : step[BIAS] + step[ROWS]]
    least = np.float32(0) if step[RELU] else np.float32(-np.inf)
    pitch, more = step[OUT_PLANE] * n, step[PLUS_PLANE] * n
    height, width, across = step[HEIGHT], step[WIDTH], 1
    aligned = step[IN_LINE] == step[OUT_LINE] and (step[PLUS] < 0 or step[PLUS_LINE] == step[OUT_LINE])
    if step[ACROSS] > 1:
        width, across = 1, step[WIDTH]
    elif n == 1 and step[DOWN] == 1 and aligned:
        width, height = (height - 1) * step[OUT_LINE] + width, 1
    for y in range(height):
        for x in range(across):
            base = (step[IN] + y * step[DOWN] * step[IN_LINE] + x * step[ACROSS]) * n
            place = (step[OUT] + y * step[OUT_LINE] + x) * n
            plus = (step[PLUS] + y * step[PLUS_LINE] + x) * n if step[PLUS] >= 0 else -1
            if dense:
                first = step[FIRST]
                dense_stream(
                    values, first, shared, offsets, least, room, base, n, width * n, room, place, pitch, plus, more
                )
            else:
                stream(values, columns, own, offsets, least, room, base, n, width * n, room, place, pitch, plus, more)


@compiled
def inside(first: int, pitch: int, size: int, count: int) -> tuple[int, int]:
    """Which of `count` places, `pitch` apart from `first` on, are from 0 to `size` - 1: begin and end."""
    return max(0, -(first // pitch)), min(count, -((first - size) // pitch))


@compiled
def largest_step(step: Any, room: Floats, n: int) -> None:
    """Max pooling. Of a window only what is inside the image counts; where nothing is, the largest is -inf."""
    down, across = step[DILATE_H] * step[IN_LINE], step[DILATE_W]
    for c in range(step[ROWS]):
        image = step[IN] + c * step[IN_PLANE] + step[INNER] * step[IN_LINE] + step[FIRST]
        for y in range(step[HEIGHT]):
            top = y * step[DOWN] - step[INNER]
            first_line, end_line = inside(top, step[DILATE_H], step[IN_HEIGHT], step[KERNEL_H])
            for x in range(step[WIDTH]):
                left = x * step[ACROSS] - step[FIRST]
                first_column, end_column = inside(left, step[DILATE_W], step[IN_WIDTH], step[KERNEL_W])
                corner = image + top * step[IN_LINE] + left
                place = step[OUT] + c * step[OUT_PLANE] + y * step[OUT_LINE] + x
                if n == 1:
                    one = np.float32(-np.inf)
                    for i in range(first_line, end_line):
                        for j in range(first_column, end_column):
                            new = room[corner + i * down + j * across]
                            one = new if new > one or np.isnan(new) else one
                    room[place] = one
                    continue
                for t in range(0, n, LANES):
                    most = none = splat(np.float32(-np.inf))
                    for i in range(first_line, end_line):
                        for j in range(first_column, end_column):
                            value = load(room, (corner + i * down + j * across) * n + t)
                            most = larger(value, most)
                            none = subtract(none, larger(value, splat(np.float32(np.inf))))  # -inf until one is NaN
                    store(room, place * n + t, larger(none, most))


@compiled
def clear_padding(step: Any, room: Floats, n: int) -> None:
    """Zeros around the outputs of a step."""
    above, below = step[TOP] * step[OUT_LINE], step[BELOW] * step[OUT_LINE]
    between = step[LEFT] + step[RIGHT]
    if above + below + between == 0:
        return
    for c in range(step[ROWS]):
        first = step[OUT] + c * step[OUT_PLANE] - step[LEFT]
        room[(first - above) * n : (first + step[LEFT]) * n] = 0
        end = first + step[HEIGHT] * step[OUT_LINE]
        for y in range(1, step[HEIGHT]):
            line = first + y * step[OUT_LINE]
            room[(line - step[RIGHT]) * n : (line + step[LEFT]) * n] = 0
        room[(end - step[RIGHT]) * n : (end + below) * n] = 0


@compiled
def pack(x: Floats, begin: int, images: int, runs: Table, room: Floats, n: int) -> None:
    """Put images, which are rows of `x`, into the room. A row of `runs` is a run of pixels: where it begins in an
    image, in the room, and how long it is."""
    size = x.shape[1]
    source = x.reshape(x.size)
    if n == 1:
        for i in range(runs.shape[0]):
            first = begin * size + runs[i, 0]
            room[runs[i, 1] : runs[i, 1] + runs[i, 2]] = source[first : first + runs[i, 2]]
        return
    places = np.empty(n, np.int64)
    for b in range(n):
        places[b] = (begin + (b if b < images else 0)) * size
    for i in range(runs.shape[0]):
        first, place, length = runs[i, 0], runs[i, 1], runs[i, 2]
        for b in range(0, n, LANES):
            p = 0
            while p < length and length >= LANES:
                p = min(p, length - LANES)
                transpose(source, places, b, first + p, room, (place + p) * n + b, n)
                p += LANES
            while p < length:
                for lane in range(b, b + LANES):
                    room[(place + p) * n + lane] = source[places[lane] + first + p]
                p += 1


@compiled
def unpack(room: Floats, places: Table, n: int, begin: int, images: int, out: Floats) -> None:
    """out[begin + b, u] = room[places[u] · n + b]."""
    for b in range(images):
        for u in range(places.size):
            out[begin + b, u] = room[places[u] * n + b]


@compiled
def run(
    table: Table,
    values: Floats,
    columns: Indices,
    bounds: Indices,
    biases: Floats,
    runs: Table,
    places: Table,
    x: Floats,
    begin: int,
    end: int,
    n: int,
    room: Floats,
    out: Floats,
) -> None:
    """Images `begin` to `end` of `x`, (images, numbers of one), to the same rows of `out`; `n` at a time: 1 or a
    multiple of 16. `room` is working space."""
    for first in range(begin, end, n):
        images = min(n, end - first)
        pack(x, first, images, runs, room, n)
        for i in range(table.shape[0]):
            step = table[i]
            if step[KIND] == LARGEST:
                largest_step(step, room, n)
            elif step[KIND] != INPUT:
                product_step(step, values, columns, bounds, biases, room, n)
            clear_padding(step, room, n)
        unpack(room, places, n, first, images, out)


@compiled
def run_at(
    table: Table,
    values: Floats,
    columns: Indices,
    bounds: Indices,
    biases: Floats,
    runs: Table,
    places: Table,
    address: int,
    size: int,
    begin: int,
    end: int,
    n: int,
    room: Floats,
    out: Floats,
) -> None:
    """The same with images of `size` numbers at an address: to make an array of a tensor takes longer than to answer
    one example of a small network."""
    x = carray(floats_at(address), (end, size))
    run(table, values, columns, bounds, biases, runs, places, x, begin, end, n, room, out)
