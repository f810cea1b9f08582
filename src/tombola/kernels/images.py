"""Examples copied into and out of a workspace, and the zeros around images.

In a workspace, examples lie side by side: pixel p of example b of `n` is at `p · n + b`. Where the pixels of an
example are is given by its *runs*: a row has the offset of a run of pixels in a contiguous example, its offset in the
workspace, in pixels, and its length.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tombola.kernels.compiled import compiled
from tombola.kernels.products import Floats
from tombola.kernels.vectors import LANES, transpose

Table = npt.NDArray[np.int64]


@compiled
def pack(source: Floats, starts: Table, runs: Table, n: int, out: Floats, base: int) -> None:
    """Copy `n` examples into a workspace, which begins at `base` in `out`; example b is `source[starts[b]:]`."""
    for i in range(runs.shape[0]):
        first, offset, length = runs[i, 0], runs[i, 1], runs[i, 2]
        if n == 1:
            for p in range(length):  # not a slice, whose error message would take seconds to compile
                out[base + offset + p] = source[starts[0] + first + p]
            continue
        for b in range(0, n, LANES):
            p = 0
            while p < length and length >= LANES:
                p = min(p, length - LANES)  # the last vector may overlap the one before
                transpose(source, starts, b, first + p, out, base + (offset + p) * n + b, n)
                p += LANES
            while p < length:
                for lane in range(b, b + LANES):
                    out[base + (offset + p) * n + lane] = source[starts[lane] + first + p]
                p += 1


@compiled
def unpack(source: Floats, base: int, runs: Table, n: int, count: int, out: Floats, begin: int, size: int) -> None:
    """The inverse of `pack`, for the first `count` of `n` examples: example b becomes `out[begin + b · size:]`."""
    starts = np.empty(LANES, np.int64)
    for i in range(runs.shape[0]):
        first, offset, length = runs[i, 0], base + runs[i, 1] * n, runs[i, 2]
        p = 0
        while p < length and length >= LANES:
            p = min(p, length - LANES)
            for k in range(LANES):
                starts[k] = offset + (p + k) * n
            for b in range(0, count, LANES):
                if b + LANES <= count:
                    transpose(source, starts, 0, b, out, begin + b * size + first + p, size)
                    continue
                for k in range(LANES):
                    for rest in range(b, count):
                        out[begin + rest * size + first + p + k] = source[starts[k] + rest]
            p += LANES
        while p < length:
            for b in range(count):
                out[begin + b * size + first + p] = source[offset + p * n + b]
            p += 1


@compiled
def clear_padding(out: Floats, base: int, n: int, place: Any, size: Any, padding: Any) -> None:
    """Set the zeros around images. `place`: first pixel, and distances of channels and lines, in pixels; `size`:
    channels, height and width; `padding`: top, left, bottom and right."""
    (first, plane, line), (channels, height, width), (top, left, bottom, right) = place, size, padding
    if top + left + bottom + right == 0:
        return
    for c in range(channels):
        pixel = first + c * plane
        out[base + (pixel - left - top * line) * n : base + pixel * n] = 0
        for y in range(1, height):
            end = pixel + y * line
            out[base + (end - line + width) * n : base + end * n] = 0
        end = pixel + (height - 1) * line + width
        out[base + end * n : base + (end + right + bottom * line) * n] = 0
