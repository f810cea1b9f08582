"""The sizes of tiles, and options of compilation."""

from __future__ import annotations

import triton

SMALLEST, LARGEST = 16, 64
"""Of a side: what Triton's products need, and what reads little and fits. With 64, the layers of LeNet-300-100 read
their inputs up to five times, all but the first from the L2 cache; 32 would be ten. Sizes are fixed: measuring which
are fastest would change the order of sums, and with it the bits of a result."""


def block_size(size: int) -> int:
    """Of the tiles along an axis of that size: a power of two."""
    power: int = triton.next_power_of_2(size)
    return max(SMALLEST, min(LARGEST, power))


FUSED_ADDITIONS = {"enable_fp_fusion": True}
"""A product and a sum may become one operation, rounded once. Said here because Triton's default changes."""
