"""Pooling of one group, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from tombola.kernels.compiled import compiled
from tombola.kernels.pooling import pool, pool_gradient
from tombola.kernels.training.elementwise import zero_gradient
from tombola.kernels.training.tables import AVERAGE_POOL, Step


@compiled
def window_of(step: Step) -> Any:
    return (
        step.kernel_h, step.kernel_w, step.stride_h, step.stride_w, step.dilation_h, step.dilation_w, step.top,
        step.left,
    )  # fmt: skip


@compiled
def pool_forward(work: Any, step: Step, g: int) -> None:
    """Max or average pooling with ReLU."""
    place = g * work.group_size, step.x, step.x_plane, step.x_line
    out = g * work.group_size, step.y, step.y_plane, step.y_line
    minimum = np.float32(0) if step.relu else np.float32(-np.inf)
    sizes = (step.in_height, step.in_width), out, (step.rows, step.height, step.width)
    pool(work.activations, work.n, place, *sizes, window_of(step), step.kind == AVERAGE_POOL, minimum)


@compiled
def pool_backward(work: Any, step: Step, g: int) -> None:
    """The gradient of the source."""
    overwrite = step.dx_first == 1
    if overwrite and not step.tiles:
        zero_gradient(work, step, g)
        overwrite = False
    place = g * work.group_size, step.x, step.x_plane, step.x_line
    out = g * work.group_size, step.y, step.y_plane, step.y_line
    gradient = g * work.back_group_size, step.dx, step.dx_plane, step.dx_line
    out_gradient = g * work.back_group_size, step.dy, step.dy_plane, step.dy_line
    sizes = (step.in_height, step.in_width), out, (step.rows, step.height, step.width)
    pool_gradient(
        work.activations, work.deltas, work.n, place, *sizes, gradient, out_gradient, window_of(step),
        step.kind == AVERAGE_POOL, step.x_relu == 1, overwrite,
    )  # fmt: skip
