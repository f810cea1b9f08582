"""Program: a network as arrays that `kernels.run` works through; made of a plan, checked before it runs."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tombola.engines.sparse.products import Floats, Indices
from tombola.engines.sparse.vectors import LANES
from tombola.exports.runtime import kernels as k
from tombola.exports.runtime.kernels import Table
from tombola.utils.errors import DamagedFile

ARRAYS: dict[str, type[np.generic]] = {
    "table": np.int64,
    "values": np.float32,
    "columns": np.int32,
    "bounds": np.int32,
    "biases": np.float32,
    "runs": np.int64,
    "places": np.int64,
}
"""The arrays of a program, and what they are made of."""

MOST = 2**40
"""No place, size or distance is larger than this, so that none of the sums below overflow."""


LARGEST_ROOM = 2**26
"""The most numbers that one example may need as working space; VGG-16 on images of 224 × 224 pixels needs a tenth."""

_SIZES = (k.ROWS, k.HEIGHT, k.WIDTH)


@dataclass(frozen=True)
class Program:
    """A network for `kernels.run`."""

    inputs: tuple[int, ...]
    """The shape of one example."""
    outputs: tuple[int, ...]
    """The shape of one answer."""
    room: int
    """How many numbers an example needs as working space."""
    table: Table
    """A row for each step; see `kernels.FIELDS`."""
    values: Floats
    columns: Indices
    bounds: Indices
    biases: Floats
    runs: Table
    places: Table

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """By name, as in `ARRAYS`."""
        return {name: getattr(self, name) for name in ARRAYS}

    @property
    def together(self) -> int:
        """How many examples are best worked on side by side, of many: long streams that still fit a cache."""
        pointlike = (self.table[:, k.HEIGHT] * self.table[:, k.WIDTH] == 1).all()
        # With few images a stream of 64 is several pixels; their neighbourhoods overlap, and stay in the cache.
        return 64 if pointlike else LANES

    @property
    def bytes(self) -> int:
        """What its arrays take."""
        return sum(array.nbytes for array in self.arrays.values())

    @functools.cached_property
    def work(self) -> int:
        """Multiply-adds for one example, those with zeros of dense layers included, and those that copy, add or
        average."""
        return sum(_work(step, self.bounds) for step in self.table)

    def check(self) -> None:
        """Make sure that no step reads or writes where it should not: compiled code does not look.

        Raises `DamagedFile` that says what is wrong.
        """
        for name, array in self.arrays.items():
            axes = 2 if name in ("table", "runs") else 1
            if array.dtype != ARRAYS[name] or array.ndim != axes or not array.flags.c_contiguous:
                raise DamagedFile(f"the {name} of the program are not of the right kind")
        if max(len(self.inputs), len(self.outputs)) > 8:
            raise DamagedFile("the shapes of the program have axes beyond reason")
        if not all(0 < size <= MOST for size in (*self.inputs, *self.outputs, self.room)) or self.room > LARGEST_ROOM:
            raise DamagedFile("a shape of the program is not positive, or beyond reason")
        for name in ("table", "runs", "places"):
            numbers = self.arrays[name]
            if numbers.min(initial=0) < -MOST or numbers.max(initial=0) > MOST:
                raise DamagedFile(f"the {name} of the program have numbers beyond reason")
        if self.table.shape[1] != len(k.FIELDS) or self.runs.shape[1] != 3 or not len(self.runs):
            raise DamagedFile("the table or the runs of the program have other columns")
        first, place, length = self.runs.T
        size = math.prod(self.inputs)
        if int(length.sum()) != size or len(self.places) != math.prod(self.outputs):
            raise DamagedFile("the program has places for more or fewer inputs or outputs than there are")
        inside = [(first, first + length, size), (place, place + length, self.room)]
        inside.append((self.places, self.places + 1, self.room))
        if length.min() < 1 or any(low.min() < 0 or int(high.max()) > most for low, high, most in inside):
            raise DamagedFile("inputs or outputs of the program lie outside its room")
        kinds = self.table[:, k.KIND].tolist()
        if kinds[:1] != [k.INPUT] or kinds.count(k.INPUT) > 1 or math.prod(self.table[0, [*_SIZES]].tolist()) != size:
            raise DamagedFile("the program does not begin with its inputs")
        for number, step in enumerate(self.table):
            if problem := self._problem([int(field) for field in step]):
                raise DamagedFile(f"step {number} of the program {problem}")
        if self.room != max((_ends(step)[1] for step in self.table.tolist()), default=0):
            raise DamagedFile("the program has a room of another size than its steps use")

    def _problem(self, step: list[int]) -> str | None:
        """What is wrong with a step."""
        rows, height, width = step[k.ROWS], step[k.HEIGHT], step[k.WIDTH]
        sizes = (k.ROWS, k.HEIGHT, k.WIDTH, k.DOWN, k.ACROSS, k.KERNEL_H, k.KERNEL_W, k.DILATE_H, k.DILATE_W)
        distances = (k.IN_PLANE, k.IN_LINE, k.OUT_PLANE, k.OUT_LINE, k.PLUS_PLANE, k.PLUS_LINE)
        around = (k.TOP, k.LEFT, k.BELOW, k.RIGHT)
        if min(step[field] for field in sizes) < 1 or min(step[field] for field in (*distances, *around)) < 0:
            return "has sizes that are not positive"
        line, lines = step[k.LEFT] + width + step[k.RIGHT], step[k.TOP] + height + step[k.BELOW]
        if (step[k.OUT_LINE], step[k.OUT_PLANE]) != (line, lines * line):
            return "has lines or channels of another size than its outputs"
        begin, end = _ends(step)
        if begin < 0 or end > self.room:
            return "writes outside the room"
        if step[k.KIND] == k.INPUT:
            return None
        if step[k.KIND] == k.LARGEST:
            return self._pooling_problem(step)
        if step[k.KIND] not in (k.SPARSE, k.DENSE):
            return "is of no known kind"
        if not 0 <= step[k.BIAS] <= len(self.biases) - rows:
            return "has no biases"
        high = (rows - 1) * step[k.PLUS_PLANE] + (height - 1) * step[k.PLUS_LINE] + width
        if step[k.PLUS] != -1 and not 0 <= step[k.PLUS] <= self.room - high:
            return "adds what is outside the room"
        low, high = self._reach(step)
        last = (height - 1) * step[k.DOWN] * step[k.IN_LINE] + (width - 1) * step[k.ACROSS]
        if low > high:
            return "has weights that are not there"
        if step[k.IN] + low < 0 or step[k.IN] + last + high >= self.room:
            return "reads outside the room"
        return None

    def _reach(self, step: list[int]) -> tuple[int, int]:
        """The least and the largest distance at which a product reads; (1, 0) where its weights are not there."""
        rows = step[k.ROWS]
        if step[k.KIND] == k.DENSE:
            inner, first, begin = step[k.INNER], step[k.FIRST], step[k.BOUND]
            there = 0 <= begin <= len(self.columns) - inner and 0 <= first <= len(self.values) - rows * inner
            if inner < 1 or not there:
                return 1, 0
            shared = self.columns[begin : begin + inner]
            return int(shared.min()), int(shared.max())
        if not 0 <= step[k.BOUND] < len(self.bounds) - rows:
            return 1, 0
        bounds = self.bounds[step[k.BOUND] : step[k.BOUND] + rows + 1]
        first, end = int(bounds[0]), int(bounds[-1])
        if first < 0 or end > min(len(self.values), len(self.columns)) or (bounds[1:] < bounds[:-1]).any():
            return 1, 0
        columns = self.columns[first:end]
        return (int(columns.min()), int(columns.max())) if len(columns) else (0, 0)

    def _pooling_problem(self, step: list[int]) -> str | None:
        height, width, above, before = (step[field] for field in (k.IN_HEIGHT, k.IN_WIDTH, k.INNER, k.FIRST))
        if min(height, width) < 1 or min(above, before) < 0:
            return "pools images of no size"
        last = (step[k.HEIGHT] - 1) * step[k.DOWN] - above, (step[k.WIDTH] - 1) * step[k.ACROSS] - before
        if last[0] >= height or last[1] >= width:
            return "pools what is outside the image"
        first = step[k.IN] + above * step[k.IN_LINE] + before
        end = first + (step[k.ROWS] - 1) * step[k.IN_PLANE] + (height - 1) * step[k.IN_LINE] + width
        return "pools what is outside the room" if first < 0 or end > self.room else None


def _ends(step: list[int]) -> tuple[int, int]:
    """Where the outputs of a step begin and end in the room, zeros around them included."""
    begin = step[k.OUT] - step[k.TOP] * step[k.OUT_LINE] - step[k.LEFT]
    return begin, begin + step[k.ROWS] * step[k.OUT_PLANE]


def _work(step: Any, bounds: Indices) -> int:
    pixels = int(step[k.HEIGHT] * step[k.WIDTH])
    if step[k.KIND] == k.DENSE:
        return pixels * int(step[k.ROWS] * step[k.INNER])
    if step[k.KIND] == k.SPARSE:
        return pixels * int(bounds[step[k.BOUND] + step[k.ROWS]] - bounds[step[k.BOUND]])
    return 0


def whole(images: int) -> int:
    """How many images are worked on side by side where there are so many: 1, or a multiple of 16."""
    return 1 if images == 1 else -(-images // LANES) * LANES
