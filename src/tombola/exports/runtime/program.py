"""Program: a network as arrays that the kernels of inference execute; built from a plan, checked before it runs."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tombola.kernels import inference as k
from tombola.kernels.images import Table
from tombola.kernels.products import Floats, Indices
from tombola.kernels.vectors import LANES
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
"""The arrays of a program, and their types."""

MAX_NUMBER = 2**40
"""Offsets, sizes and distances are at most this large, so that no sum below overflows."""
MAX_WORKSPACE = 2**26
"""The most numbers of workspace for one example; VGG-16 on images of 224 × 224 pixels needs a tenth."""
_SIZES = (k.ROWS, k.HEIGHT, k.WIDTH)


@dataclass(frozen=True)
class Program:
    """A network for `tombola.kernels.inference.run`."""

    inputs: tuple[int, ...]
    """The shape of one example."""
    outputs: tuple[int, ...]
    """The shape of the outputs for one example."""
    workspace: int
    """How many numbers of workspace one example needs."""
    table: Table
    """A row for each step; see `tombola.kernels.inference.FIELDS`."""
    values: Floats
    """The weights."""
    columns: Indices
    """The distance, in pixels, at which each weight reads its input."""
    bounds: Indices
    """Where the weights of each row of a sparse product begin and end."""
    biases: Floats
    runs: Table
    """Of the inputs: see `tombola.kernels.images`."""
    places: Table
    """The offset of each output in the workspace."""

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """By name, as in `ARRAYS`."""
        return {name: getattr(self, name) for name in ARRAYS}

    @property
    def block_size(self) -> int:
        """How many examples of a large batch are computed side by side: long streams that still fit into a cache."""
        pointlike = (self.table[:, k.HEIGHT] * self.table[:, k.WIDTH] == 1).all()
        # With few images a stream of 64 is several pixels; their neighbourhoods overlap, and stay in the cache.
        return 64 if pointlike else LANES

    @functools.cached_property
    def multiply_adds(self) -> int:
        """For one example: those with zeros of dense layers, and those that copy, add or average, count too."""
        return sum(_multiply_adds(step, self.bounds) for step in self.table)

    def check(self) -> None:
        """Raise `DamagedFile` if a step could read or write outside of the arrays: compiled code does not check."""
        for name, array in self.arrays.items():
            axes = 2 if name in ("table", "runs") else 1
            if array.dtype != ARRAYS[name] or array.ndim != axes or not array.flags.c_contiguous:
                raise DamagedFile(f"{name} of the program has an invalid type or number of axes")
        if max(len(self.inputs), len(self.outputs)) > 8:
            raise DamagedFile("a shape of the program has too many axes")
        sizes = (*self.inputs, *self.outputs, self.workspace)
        if not all(0 < size <= MAX_NUMBER for size in sizes) or self.workspace > MAX_WORKSPACE:
            raise DamagedFile("a shape or the workspace of the program is not positive or too large")
        for name in ("table", "runs", "places"):
            numbers = self.arrays[name]
            if numbers.min(initial=0) < -MAX_NUMBER or numbers.max(initial=0) > MAX_NUMBER:
                raise DamagedFile(f"{name} of the program has numbers that are too large")
        if self.table.shape[1] != len(k.FIELDS) or self.runs.shape[1] != 3 or not len(self.runs):
            raise DamagedFile("table or runs of the program have a wrong number of columns or rows")
        first, place, length = self.runs.T
        size = math.prod(self.inputs)
        if int(length.sum()) != size or len(self.places) != math.prod(self.outputs):
            raise DamagedFile("runs or places of the program do not match the number of inputs or outputs")
        inside = [(first, first + length, size), (place, place + length, self.workspace)]
        inside.append((self.places, self.places + 1, self.workspace))
        if length.min() < 1 or any(low.min() < 0 or int(high.max()) > most for low, high, most in inside):
            raise DamagedFile("inputs or outputs of the program lie outside the workspace")
        kinds = self.table[:, k.KIND].tolist()
        if kinds[:1] != [k.INPUT] or kinds.count(k.INPUT) > 1 or math.prod(self.table[0, [*_SIZES]].tolist()) != size:
            raise DamagedFile("the program does not begin with its inputs")
        for number, step in enumerate(self.table):
            if problem := self._problem([int(field) for field in step]):
                raise DamagedFile(f"step {number} of the program {problem}")
        if self.workspace != max((_written(step)[1] for step in self.table.tolist()), default=0):
            raise DamagedFile("the workspace of the program has another size than its steps use")

    def _problem(self, step: list[int]) -> str | None:
        """What is wrong with a step."""
        rows, height, width = step[k.ROWS], step[k.HEIGHT], step[k.WIDTH]
        sizes = (*_SIZES, k.STRIDE_H, k.STRIDE_W, k.KERNEL_H, k.KERNEL_W, k.DILATION_H, k.DILATION_W)
        distances = (k.IN_PLANE, k.IN_LINE, k.OUT_PLANE, k.OUT_LINE, k.ADDEND_PLANE, k.ADDEND_LINE)
        padding = (k.PAD_TOP, k.PAD_LEFT, k.PAD_BOTTOM, k.PAD_RIGHT)
        if min(step[field] for field in sizes) < 1 or min(step[field] for field in (*distances, *padding)) < 0:
            return "has sizes that are not positive"
        line, lines = step[k.PAD_LEFT] + width + step[k.PAD_RIGHT], step[k.PAD_TOP] + height + step[k.PAD_BOTTOM]
        if (step[k.OUT_LINE], step[k.OUT_PLANE]) != (line, lines * line):
            return "has lines or channels of another size than its outputs"
        begin, end = _written(step)
        if begin < 0 or end > self.workspace:
            return "writes outside the workspace"
        if step[k.KIND] == k.INPUT:
            return None
        if step[k.KIND] == k.MAX_POOL:
            return self._pooling_problem(step)
        if step[k.KIND] not in (k.SPARSE, k.DENSE):
            return "has an unknown kind"
        if not 0 <= step[k.BIAS] <= len(self.biases) - rows:
            return "has biases outside of the array"
        high = (rows - 1) * step[k.ADDEND_PLANE] + (height - 1) * step[k.ADDEND_LINE] + width
        if step[k.ADDEND] != -1 and not 0 <= step[k.ADDEND] <= self.workspace - high:
            return "adds numbers outside the workspace"
        low, high = self._reach(step)
        last = (height - 1) * step[k.STRIDE_H] * step[k.IN_LINE] + (width - 1) * step[k.STRIDE_W]
        if low > high:
            return "has weights outside of the arrays"
        if step[k.IN] + low < 0 or step[k.IN] + last + high >= self.workspace:
            return "reads outside the workspace"
        return None

    def _reach(self, step: list[int]) -> tuple[int, int]:
        """The smallest and the largest distance at which a product reads; (1, 0) if its weights are missing."""
        rows = step[k.ROWS]
        if step[k.KIND] == k.DENSE:
            inner, first, begin = step[k.INNER], step[k.FIRST], step[k.BOUND]
            complete = 0 <= begin <= len(self.columns) - inner and 0 <= first <= len(self.values) - rows * inner
            if inner < 1 or not complete:
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
        height, width, top, left = (step[field] for field in (k.IN_HEIGHT, k.IN_WIDTH, k.INNER, k.FIRST))
        if min(height, width) < 1 or min(top, left) < 0:
            return "pools images without pixels, or with negative padding"
        last = (step[k.HEIGHT] - 1) * step[k.STRIDE_H] - top, (step[k.WIDTH] - 1) * step[k.STRIDE_W] - left
        if last[0] >= height or last[1] >= width:
            return "pools pixels outside the image"
        first = step[k.IN] + top * step[k.IN_LINE] + left
        end = first + (step[k.ROWS] - 1) * step[k.IN_PLANE] + (height - 1) * step[k.IN_LINE] + width
        return "pools pixels outside the workspace" if first < 0 or end > self.workspace else None


def _written(step: list[int]) -> tuple[int, int]:
    """Where the outputs of a step begin and end in the workspace, padding included."""
    begin = step[k.OUT] - step[k.PAD_TOP] * step[k.OUT_LINE] - step[k.PAD_LEFT]
    return begin, begin + step[k.ROWS] * step[k.OUT_PLANE]


def _multiply_adds(step: Any, bounds: Indices) -> int:
    pixels = int(step[k.HEIGHT] * step[k.WIDTH])
    if step[k.KIND] == k.DENSE:
        return pixels * int(step[k.ROWS] * step[k.INNER])
    if step[k.KIND] == k.SPARSE:
        return pixels * int(bounds[step[k.BOUND] + step[k.ROWS]] - bounds[step[k.BOUND]])
    return 0


def padded_batch(images: int) -> int:
    """How many images are computed side by side for a batch of so many: 1, or a multiple of 16."""
    return 1 if images == 1 else -(-images // LANES) * LANES
