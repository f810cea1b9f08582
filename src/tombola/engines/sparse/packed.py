"""Packed: where the weights left of a matrix are, in the order in which the products want them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tombola.engines.sparse.products import Indices

BLOCK = 96
"""How many columns are worked on at a time. With 64 examples they are 24 KB, which stay in the nearest cache."""

LONG = 20
"""How many entries of a row a block should have on average, to be worth its overhead."""


@dataclass(frozen=True)
class SparsityPattern:
    """Where a sparse matrix has entries. Its columns are divided into blocks, and its entries into segments: one for
    each row in the first block, one for each row in the second, and so on; within a segment columns ascend."""

    rows: int
    columns: Indices
    """Of each entry."""
    bounds: Indices
    """Segment s has the entries from `bounds[s]` to `bounds[s + 1]`; it is of row `s % rows`."""
    order: npt.NDArray[np.int64]
    """Which entry this is of the flattened matrix."""

    @classmethod
    def of(cls, kept: npt.NDArray[np.bool_]) -> SparsityPattern:
        """Of a bool matrix."""
        rows, columns = kept.shape
        blocks = max(1, round(columns / BLOCK)) if kept.mean() * BLOCK >= LONG else 1
        edges = np.linspace(0, columns, blocks + 1).astype(int)
        parts = [kept[:, begin:end] for begin, end in itertools.pairwise(edges)]
        row, column = np.concatenate(
            [np.add(np.nonzero(part), [[0], [edge]]) for part, edge in zip(parts, edges, strict=False)], axis=1
        )
        bounds = np.cumsum([0, *np.concatenate([part.sum(axis=1) for part in parts])])
        return cls(rows, column.astype(np.int32), bounds.astype(np.int32), row * columns + column)

    def transposed(self, columns: int) -> tuple[SparsityPattern, Indices]:
        """The pattern of the transpose, in one block, and where in this one's order each of its entries is."""
        places, bounds = grouped(self.columns, columns)
        row = self.order[places] // columns
        order = self.columns[places].astype(np.int64) * self.rows + row
        return SparsityPattern(columns, row.astype(np.int32), bounds, order), places


def grouped(groups: Indices, count: int) -> tuple[Indices, Indices]:
    """The entries sorted by their group, from 0 to `count` - 1: their places, and the bounds of each group."""
    bounds = np.cumsum([0, *np.bincount(groups, minlength=count)])
    return np.argsort(groups, kind="stable").astype(np.int32), bounds.astype(np.int32)
