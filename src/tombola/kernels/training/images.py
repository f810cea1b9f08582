"""Examples gathered into the workspace, and the zeros around images."""

from __future__ import annotations

from typing import Any

import numpy as np

from tombola.kernels.compiled import compiled
from tombola.kernels.products import Floats
from tombola.kernels.training.tables import Step
from tombola.kernels.vectors import LANES, transpose


@compiled
def clear_padding(
    out: Floats, base: int, n: int, first: int, plane: int, line: int, channels: int, height: int, width: int,
    top: int, left: int, bottom: int, right: int,
) -> None:  # fmt: skip
    """Set the zeros around images whose first pixel is `first`."""
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


@compiled
def write_examples(
    source: Floats, starts: Any, n: int, size: Any, out: Floats, base: int, first: int, plane: int, line: int
) -> None:
    """Write `n` examples side by side: example b is `source[starts[b]:]`, of `size`, (channels, height, width)."""
    channels, height, width = size
    if plane == height * width:  # without padding, an example is one run of numbers
        channels, height, width = 1, 1, channels * height * width
    for c in range(channels):
        for i in range(height):
            pixel = (c * height + i) * width
            place = base + (first + c * plane + i * line) * n
            j = 0
            while j < width and width >= LANES:
                j = min(j, width - LANES)
                for b in range(0, n, LANES):
                    transpose(source, starts, b, pixel + j, out, place + j * n + b, n)
                j += LANES
            while j < width:
                for b in range(n):
                    out[place + j * n + b] = source[starts[b] + pixel + j]
                j += 1


@compiled
def read_examples(
    source: Floats,
    base: int,
    first: int,
    plane: int,
    line: int,
    n: int,
    count: int,
    size: Any,
    out: Floats,
    begin: int,
) -> None:
    """The inverse of `write_examples`, of the first `count` of `n` examples: example b is at `begin + b · size`."""
    channels, height, width = size
    pixels = channels * height * width
    starts = np.empty(LANES, np.int64)
    if plane == height * width:
        channels, height, width = 1, 1, pixels
    for c in range(channels):
        for i in range(height):
            pixel = (c * height + i) * width
            place = base + (first + c * plane + i * line) * n
            j = 0
            while j < width and width >= LANES:
                j = min(j, width - LANES)
                for k in range(LANES):
                    starts[k] = place + (j + k) * n
                for b in range(0, count, LANES):
                    if b + LANES <= count:
                        transpose(source, starts, 0, b, out, begin + b * pixels + pixel + j, pixels)
                    else:
                        for k in range(LANES):
                            for rest in range(b, count):
                                out[begin + rest * pixels + pixel + j + k] = source[starts[k] + rest]
                j += LANES
            while j < width:
                for b in range(count):
                    out[begin + b * pixels + pixel + j] = source[place + j * n + b]
                j += 1


@compiled
def gather_examples(
    x: Floats, rows: Any, first: int, step: Step, features: Any, choices: Any, crop: int, black: Floats, starts: Any,
    work: Any, g: int,
) -> None:  # fmt: skip
    """Gather the examples `first` to `first + n` of `rows` into group `g`; those past the last repeat the first.

    `x`: (examples, channels · height · width). `choices`: empty, or (rows, 3), whether an image is flipped, and the
    first row and column of its crop in the image padded with `crop` pixels of the value `black`. `features`: see
    `Structure`.
    """
    n, height, width = work.n, step.in_height, step.in_width
    source = x.reshape(x.size)
    out, base = work.activations, g * work.room
    for b in range(n):
        at = first + b if first + b < rows.size else 0
        starts[b] = rows[at] * x.shape[1]
    if choices.size:
        for c in range(step.channels):
            for b in range(n):
                at = first + b if first + b < rows.size else 0
                flipped, top, left = choices[at, 0], choices[at, 1] - crop, choices[at, 2] - crop
                for i in range(height):
                    line = base + (step.x + c * step.x_plane + i * step.x_line) * n + b
                    y = i + top
                    pixel = starts[b] + (c * height + y) * width
                    for j in range(width):
                        x_at = (width - 1 - j if flipped else j) + left
                        inside = 0 <= y < height and 0 <= x_at < width
                        out[line + j * n] = source[pixel + x_at] if inside else black[c]
        return
    if features.size:
        for b in range(0, n, LANES):
            for f in features:
                transpose(source, starts, b, f, out, base + (step.x + f) * n + b, n)
        return
    size = step.channels, height, width
    write_examples(source, starts, n, size, out, base, step.x, step.x_plane, step.x_line)
