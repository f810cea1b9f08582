"""The positions of the kept weights of a matrix, in the order that the sparse products use."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tombola.kernels.products import Indices

BLOCK = 96
"""Columns per block. Their activations for 64 examples are 24 KB, which fit into the L1 cache."""

MIN_BLOCK_ENTRIES = 20
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
        blocks = max(1, round(columns / BLOCK)) if kept.mean() * BLOCK >= MIN_BLOCK_ENTRIES else 1
        edges = np.linspace(0, columns, blocks + 1).astype(int)
        parts = [kept[:, begin:end] for begin, end in itertools.pairwise(edges)]
        row, column = np.concatenate(
            [np.add(np.nonzero(part), [[0], [edge]]) for part, edge in zip(parts, edges, strict=False)], axis=1
        )
        bounds = np.cumsum([0, *np.concatenate([part.sum(axis=1) for part in parts])])
        return cls(rows, column.astype(np.int32), bounds.astype(np.int32), row * columns + column)

    def transposed(self, columns: int) -> tuple[SparsityPattern, Indices]:
        """The pattern of the transpose, in one block, and the index of each of its entries in this pattern."""
        places, bounds = grouped(self.columns, columns)
        row = self.order[places] // columns
        order = self.columns[places].astype(np.int64) * self.rows + row
        return SparsityPattern(columns, row.astype(np.int32), bounds, order), places


def grouped(groups: Indices, count: int) -> tuple[Indices, Indices]:
    """Indices that sort the entries by group, from 0 to `count` - 1, and the bounds of each group."""
    bounds = np.cumsum([0, *np.bincount(groups, minlength=count)])
    return np.argsort(groups, kind="stable").astype(np.int32), bounds.astype(np.int32)
