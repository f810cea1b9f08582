"""The positions of the kept weights of a matrix, in the order that the sparse products use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tombola.kernels.products import Indices

BLOCK = 128
"""Columns of a block, at least. Their activations for 64 examples are 32 KB, which fit into the L1 cache."""

MIN_BLOCK_ENTRIES = 28
"""Entries of a row in a block, on average, that are worth the overhead of blocks."""


@dataclass(frozen=True)
class SparsityPattern:
    """The positions of the entries of a sparse matrix. Its columns are divided into blocks and its entries into
    segments: one for each row in the first block, one for each row in the second, and so on; columns ascend within a
    segment."""

    rows: int
    columns: Indices
    """Of each entry."""
    bounds: Indices
    """Segment s has the entries `bounds[s]` to `bounds[s + 1]`, all of row `s % rows`."""
    order: npt.NDArray[np.int64]
    """The index of each entry in the flattened matrix."""

    @classmethod
    def of(cls, kept: npt.NDArray[np.bool_]) -> SparsityPattern:
        """The pattern of a bool matrix."""
        rows, columns = kept.shape
        row, column = np.nonzero(kept)
        order, bounds = segments(row, column, rows, columns)
        row, column = row[order], column[order]
        return cls(rows, column.astype(np.int32), bounds, row * columns + column)


def segments(row: Any, column: Any, rows: int, columns: int) -> tuple[Indices, Indices]:
    """Indices that sort the entries of a matrix by segments, and the bounds of these."""
    density = len(row) / max(1, rows * columns)
    blocks = max(1, round(columns / max(BLOCK, MIN_BLOCK_ENTRIES / max(density, 1e-9))))
    edges = np.linspace(0, columns, blocks + 1).astype(int)
    segment = (np.searchsorted(edges, column, side="right") - 1) * rows + row
    bounds = np.cumsum([0, *np.bincount(segment, minlength=rows * blocks)])
    return np.lexsort((column, segment)).astype(np.int32), bounds.astype(np.int32)
