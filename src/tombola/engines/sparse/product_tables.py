"""The sparse and dense matrices of a network's products, forward and backward, as arrays of the compiled kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tombola.kernels.image_slot import ImageSlot
from tombola.kernels.plans.training_plan import Activation, LayerProduct
from tombola.kernels.sparsity_pattern import SparsityPattern, segments
from tombola.kernels.training import tables
from tombola.pruning.mask import Mask

DENSE_ABOVE = 0.6
"""Layers of a higher density are multiplied dense and masked, because that is faster there."""


class ProductRow(NamedTuple):
    """What `ProductTables.add` says of a product."""

    fields: dict[str, Any]
    """Of its row in the table of steps."""
    size: int
    """The number of its stored weights."""
    order: npt.NDArray[np.int64] | None = None
    """Their indices in the flattened weight, if only the kept ones are stored."""
    kept: npt.NDArray[np.uint8] | None = None
    """Which of all are kept, if all are stored and some are pruned."""


class ProductTables:
    """Collects the arrays of all products. Columns are distances in pixels from the first that a kernel reads."""

    def __init__(
        self,
        mask: Mask,
        values: Mapping[Activation, ImageSlot],
        gradients: Mapping[Activation, ImageSlot],
        dense_above: float,
    ) -> None:
        self.mask, self.values, self.gradients, self.dense_above = mask, values, gradients, dense_above
        names = ("columns", "places", "bounds", "back_columns", "back_bounds", "back_places")
        self._parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in names}
        self._sizes = dict.fromkeys(names, 0)
        self._phases: list[tuple[int, ...]] = []

    @property
    def arrays(self) -> dict[str, Any]:
        """Those of `tables.Structure`."""
        joined = {name: np.concatenate([np.empty(0, np.int32), *parts]) for name, parts in self._parts.items()}
        arrays: dict[str, Any] = {name: array.astype(np.int32) for name, array in joined.items()}
        return arrays | {"phases": np.array(self._phases or [(0,) * len(tables.PHASE.names or ())], tables.PHASE)}

    def add(self, product: LayerProduct, weight: str) -> ProductRow:
        """Add a product."""
        shape = product.matrix_shape
        kept = self.mask[weight].numpy().reshape(shape) if weight in self.mask else np.ones(shape, bool)
        sparse = product.groups > 1 or bool(kept.mean() <= self.dense_above)
        masked = not sparse and not kept.all()
        fields: dict[str, Any] = {"sparse": sparse, "masked": masked}
        if sparse:
            pattern = SparsityPattern.of(kept)
            row, column = np.divmod(pattern.order, shape[1])
            stored = ProductRow(fields, len(pattern.order), order=pattern.order)
            fields["bound"] = self._append("bounds", pattern.bounds)
            fields["bounds"] = self._sizes["bounds"]
        else:
            row, column = np.zeros(shape[1], np.int64), np.arange(shape[1])
            stored = ProductRow(fields, kept.size, kept=kept.reshape(-1).view(np.uint8) if masked else None)
        offsets = self._offsets(product, row, column)
        fields["entry"], fields["entries"] = self._append("columns", offsets), len(offsets)
        self._append("places", np.arange(len(offsets)) if not sparse else np.zeros(len(offsets)))
        fields["back"] = self._sizes["back_places"]
        fields["phase"] = len(self._phases)
        if product.source in self.gradients:
            if sparse:
                self._add_sparse_phases(product, pattern)
            else:
                self._add_dense_phases(product)
        fields["backs"], fields["phases"] = self._sizes["back_places"], len(self._phases)
        return stored

    def _append(self, name: str, array: npt.NDArray[Any]) -> int:
        begin = self._sizes[name]
        self._parts[name].append(array)
        self._sizes[name] += len(array)
        return begin

    def _offsets(self, product: LayerProduct, row: Any, column: Any) -> Any:
        """Where weights at these positions of the matrix read their inputs."""
        channel, i, j = _kernel_indices(product, row, column)
        source = self.values[product.source]
        down, across = product.dilation
        return channel * source.plane + i * down * source.line + j * across

    def _add_sparse_phases(self, product: LayerProduct, pattern: SparsityPattern) -> None:
        row, column = np.divmod(pattern.order, product.matrix_shape[1])
        channel, i, j = _kernel_indices(product, row, column)
        out, channels = self.gradients[product.out], product.source.shape[0]
        if product.linear:
            _, height, width = product.source.shape
            # One block, because lines of pixels are computed one by one where there is padding between them.
            pixels = (channel * height + i) * width + j
            places = np.lexsort((row, pixels)).astype(np.int32)
            bounds = np.cumsum([0, *np.bincount(pixels, minlength=channels * height * width)]).astype(np.int32)
            bound = self._append("back_bounds", bounds)
            self._append("back_columns", (row * out.plane)[places])
            self._append("back_places", places)
            self._phases.append((bound, bound + len(bounds), 0, len(places), 0, 0, height, width))
            return
        begin = 0
        for (y, x), mine, down, across in _phases(product, i, j):
            which = np.flatnonzero(mine)
            kernel = product.kernel[0] * product.kernel[1]
            read = (row * product.kernel[0] + i) * product.kernel[1] + j
            places, bounds = segments(channel[which], read[which], channels, product.out.shape[0] * kernel)
            bound = self._append("back_bounds", bounds + begin)
            offsets = row[which] * out.plane + down[which] * out.line + across[which]
            self._append("back_columns", offsets[places])
            self._append("back_places", which[places])
            sizes = _phase_size(product, y, x)
            self._phases.append((bound, bound + len(bounds), begin, len(places), y, x, *sizes))
            begin += len(places)

    def _add_dense_phases(self, product: LayerProduct) -> None:
        outputs, inputs = product.matrix_shape
        out = self.gradients[product.out]
        if product.linear:
            rows = np.arange(outputs)
            self._append("back_columns", rows * out.plane)
            self._append("back_places", rows * inputs)
            self._phases.append((0, 0, 0, outputs, 0, 0, *product.source.shape[1:]))
            return
        height, width = product.kernel
        row, i, j = np.indices((outputs, height, width)).reshape(3, -1)
        begin = 0
        for (y, x), mine, down, across in _phases(product, i, j):
            which = np.flatnonzero(mine)
            self._append("back_columns", row[which] * out.plane + down[which] * out.line + across[which])
            self._append("back_places", row[which] * inputs + i[which] * width + j[which])
            sizes = _phase_size(product, y, x)
            self._phases.append((0, 0, begin, len(which), y, x, *sizes))
            begin += len(which)


def _kernel_indices(product: LayerProduct, row: Any, column: Any) -> Any:
    """The source channel, line and column of the kernel of weights at these positions of the matrix."""
    channels, outputs = product.source.shape[0] // product.groups, product.out.shape[0] // product.groups
    channel, i, j = np.unravel_index(column, (channels, *product.kernel))
    return channel + row // outputs * channels, i, j


def _phases(product: LayerProduct, i: Any, j: Any) -> Any:
    """For each phase of the source's pixels: its first pixel, which weights reach it, and how many lines and columns
    from an output of the same number."""
    for y in range(min(product.stride[0], product.source.shape[1])):
        for x in range(min(product.stride[1], product.source.shape[2])):
            down, rest = np.divmod(y + product.padding[0] - i * product.dilation[0], product.stride[0])
            across, other = np.divmod(x + product.padding[2] - j * product.dilation[1], product.stride[1])
            yield (y, x), (rest == 0) & (other == 0), down, across


def _phase_size(product: LayerProduct, y: int, x: int) -> tuple[int, int]:
    _, height, width = product.source.shape
    return -(-(height - y) // product.stride[0]), -(-(width - x) // product.stride[1])
