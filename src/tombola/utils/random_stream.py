"""RandomStream: an endless array that is drawn in blocks, from a seed for each block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class RandomStream:
    """Its rows are a function of their index, however it is read. The last block is kept, so that each is drawn once
    where the stream is read in order."""

    def __init__(self, draw: Callable[[int], Array], rows: int) -> None:
        """`draw(block)` returns the `rows` rows of a block."""
        self._draw = draw
        self._rows = rows
        self._last: tuple[int, Array] | None = None

    def read(self, begin: int, end: int) -> Array:
        """Rows `begin` to `end - 1`, at least one."""
        blocks = range(begin // self._rows, -(-end // self._rows))
        starts = (block * self._rows for block in blocks)
        return np.concatenate(
            [self._block(b)[max(0, begin - start) : end - start] for b, start in zip(blocks, starts, strict=True)]
        )

    def _block(self, block: int) -> Array:
        if self._last is None or self._last[0] != block:
            self._last = block, self._draw(block)
        return self._last[1]
