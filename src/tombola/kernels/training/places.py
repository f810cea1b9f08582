"""Where pixels are in the workspace."""

from __future__ import annotations

from typing import Any

from tombola.kernels.compiled import compiled


@compiled
def value_at(work: Any, g: int, pixel: int) -> int:
    """The index in `work.activations` of a pixel of the first example of group `g`."""
    return int(g * work.group_size + pixel * work.n)


@compiled
def gradient_at(work: Any, g: int, pixel: int) -> int:
    """The same in `work.deltas`."""
    return int(g * work.back_group_size + pixel * work.n)
