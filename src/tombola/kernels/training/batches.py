"""Batches of examples gathered into a workspace, with augmentation."""

from __future__ import annotations

from typing import Any

from tombola.kernels.compiled import compiled
from tombola.kernels.images import pack
from tombola.kernels.products import Floats
from tombola.kernels.training.places import value_at
from tombola.kernels.training.tables import Step


@compiled
def load_batch(
    net: Any, work: Any, x: Floats, y: Any, rows: Any, choices: Any, crop: int, black: Any, starts: Any, labels: Any
) -> None:
    """Gather the examples `rows` of `x`, (examples, numbers), and their labels. Examples that fill up the last group
    repeat the first of the batch.

    `choices`: empty, or of shape (rows, 3): whether an image is flipped, and the first row and column of its crop in
    the image padded with `crop` pixels of the value `black`. `starts` and `labels` are workspace.
    """
    source = x.reshape(x.size)
    for g in range(work.groups):
        for b in range(work.n):
            row = g * work.n + b
            within = row < rows.size
            starts[b] = rows[row if within else 0] * x.shape[1]
            work.valid[row] = 1 if within else 0
            if within:
                labels[row] = y[rows[row]]
        if choices.size:
            pack_augmented(source, starts, net.steps[0], choices, crop, black, work, g)
        else:
            pack(source, starts, net.runs, work.n, work.activations, g * work.group_size)


@compiled
def pack_augmented(
    source: Floats, starts: Any, step: Step, choices: Any, crop: int, black: Any, work: Any, g: int
) -> None:
    """`pack` of the images of group `g`, flipped and cropped."""
    height, width = step.in_height, step.in_width
    for b in range(work.n):
        row = g * work.n + b if g * work.n + b < choices.shape[0] else 0
        flipped, top, left = choices[row, 0], choices[row, 1] - crop, choices[row, 2] - crop
        for c in range(step.channels):
            for i in range(height):
                line = value_at(work, g, step.x + c * step.x_plane + i * step.x_line) + b
                pixel = starts[b] + (c * height + i + top) * width
                for j in range(width):
                    at = (width - 1 - j if flipped else j) + left
                    inside = 0 <= i + top < height and 0 <= at < width
                    work.activations[line + j * work.n] = source[pixel + at] if inside else black[c]
