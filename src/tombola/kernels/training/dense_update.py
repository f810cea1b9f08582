"""Gradients and updates of dense linear layers, some rows at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from tombola.kernels.compiled import compiled
from tombola.kernels.optimizers import update
from tombola.kernels.products import GRADIENT_COLUMNS, dense_product, transpose_columns
from tombola.kernels.training.tables import Step
from tombola.kernels.vectors import LANES

ROWS = 12
"""Rows that are updated at a time."""


@compiled
def dense_update(net: Any, weights: Any, work: Any, step: Step, options: Any, sizes: Any) -> None:
    """Compute the gradients of a dense layer's weights from that of its output, for the whole batch, and update them.

    Those of a large layer do not fit into the cache together with the moments; those of some rows do. `step.by_rows`
    is set; `sizes` are those of `step_sizes`.
    """
    n, entries, depth = work.n, step.entries, work.vectors * LANES
    blocks = -(-entries // GRADIENT_COLUMNS)
    transposed = work.scratch[: blocks * GRADIENT_COLUMNS * depth]
    gradients = work.scratch[transposed.size : transposed.size + ROWS * entries]
    columns = net.columns[step.entry : step.entry + entries]
    for c in range(0, entries, GRADIENT_COLUMNS):
        some = columns[c : c + GRADIENT_COLUMNS]
        transpose_columns(some, work.activations, step.x * n, n, work.hop, work.vectors, transposed, c * depth)
    places, numbers = np.empty(depth, np.int32), np.arange(depth).astype(np.int32)
    for t in range(depth):
        places[t] = t // LANES * work.back_hop + t % LANES
    nothing, pitch = gradients[0:0], step.dy_plane * n
    for r in range(0, step.rows, ROWS):
        count = min(ROWS, step.rows - r)
        for c in range(0, entries, GRADIENT_COLUMNS):
            vectors = min(GRADIENT_COLUMNS, entries - c) // LANES
            dense_product(
                work.deltas, step.dy * n + r * pitch, pitch, places, numbers, count, nothing, np.float32(-np.inf),
                transposed, c * depth, GRADIENT_COLUMNS, LANES, vectors, gradients, c, entries, LANES,
                nothing, 0, -1, nothing, -1, 0, 0,
            )  # fmt: skip
        begin, end = step.weights + r * entries, step.weights + (r + count) * entries
        if step.masked:
            for k in range(begin, end):
                gradients[k - begin] *= net.kept[k]
        update(weights, gradients, begin, options, sizes, options.weight_decay, begin, end)
