"""Layout of a training plan: where activations, gradients and parameters lie in the arrays of the kernels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tombola.engines.sparse.product_tables import DENSE_ABOVE, ProductTables
from tombola.kernels.image_slot import ImageSlot, Lifetime, allocate, runs_of
from tombola.kernels.plans.training_plan import (
    Activation,
    BatchNorm,
    Copy,
    Dropout,
    LayerProduct,
    Pool,
    TrainingOperation,
    TrainingPlan,
)
from tombola.kernels.products import GRADIENT_COLUMNS, Floats, Indices, aligned
from tombola.kernels.training import tables
from tombola.kernels.training.dense_update import ROWS
from tombola.kernels.training.tables import Records, TrainingTables, TrainingWeights, Workspace
from tombola.kernels.vectors import LANES
from tombola.pruning.mask import Mask, State

GAP = LANES
"""Floats between the groups of a workspace, so that their vectors do not compete for the same lines of a cache."""
_KINDS = {LayerProduct: tables.PRODUCT, BatchNorm: tables.NORM, Copy: tables.COPY, Dropout: tables.DROPOUT}


STATISTICS = {"running_mean": "means", "running_var": "variances"}
"""The buffers of batch norms, and their names in `TrainingWeights`."""


def entry(layer: str, name: str) -> str:
    """The name of a layer's parameter or buffer in a `state_dict`."""
    return f"{layer}.{name}" if layer else name


def padded(size: int) -> int:
    """`size`, rounded up to whole vectors."""
    return -(-size // LANES) * LANES


@dataclass(frozen=True)
class ParameterSlot:
    """The position of a parameter."""

    name: str
    shape: tuple[int, ...]
    begin: int
    end: int
    order: npt.NDArray[np.int64] | None = None
    """Of a weight of which only the kept ones are stored, their indices in the flattened tensor."""


class NetworkLayout:
    """The positions of what a plan computes, and of its parameters under `mask`.

    `shapes` are those of the network's `state_dict`; its other entries are running statistics. Parameters of
    normalisation layers come last if `decay_normalisation` is off. Products of a higher density than `dense_above`
    are dense.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        shapes: Mapping[str, tuple[int, ...]],
        mask: Mask,
        decay_normalisation: bool = True,
        dense_above: float = DENSE_ABOVE,
    ) -> None:
        self.plan, self.names = plan, list(shapes)
        self.slots: dict[str, ParameterSlot] = {}
        self.statistics: dict[str, slice] = {}
        """Where the running statistics of batch norms lie, by the layers' names."""
        self.values = _values(plan)
        self.gradients = _gradients(plan)
        self.pixels = max(slot.end for slot in self.values.values())
        self.back_pixels = max((slot.end for slot in self.gradients.values()), default=1)
        products = ProductTables(mask, self.values, self.gradients, dense_above)
        kept: dict[int, npt.NDArray[np.uint8]] = {}
        size = 0

        def reserve(name: str, count: int, order: Any = None, marks: Any = None) -> int:
            nonlocal size
            begin, size = padded(size), padded(size) + count
            self.slots[name] = ParameterSlot(name, tuple(shapes[name]), begin, size, order)
            if marks is not None:
                kept[begin] = marks
            return begin

        rows = [self._input_row()]
        norms: list[tuple[dict[str, Any], BatchNorm]] = []
        channels = units = 0
        for operation in plan.operations:
            row = self._row(operation)
            rows.append(row)
            if isinstance(operation, LayerProduct):
                weight = entry(operation.name, "weight")
                stored = products.add(operation, weight)
                row |= stored.fields
                row["weights"] = reserve(weight, stored.size, stored.order, stored.kept)
                row["weights_end"] = size
                row["by_rows"] = row["whole"] and not row["sparse"] and row["entries"] % LANES == 0
                if operation.bias:
                    row["bias"] = reserve(entry(operation.name, "bias"), operation.out.shape[0])
            elif isinstance(operation, BatchNorm):
                norms.append((row, operation))
                row["statistics"] = channels
                self.statistics[operation.name] = slice(channels, channels + operation.source.shape[0])
                channels += operation.source.shape[0]
            elif isinstance(operation, Dropout):
                row["unit"] = units
                units += math.prod(operation.source.shape)
        self.undecayed = padded(size)
        for row, norm in norms:
            row["scale"] = reserve(entry(norm.name, "weight"), norm.source.shape[0])
            row["bias"] = reserve(entry(norm.name, "bias"), norm.source.shape[0])
        if decay_normalisation:
            self.undecayed = padded(size)
        self.size, self.channels = padded(size), channels
        marks = np.ones(self.size, np.uint8)
        for begin, of_weight in kept.items():
            marks[begin : begin + len(of_weight)] = of_weight
        _set_sums(rows, norms, plan)
        steps = np.array([tuple(row[name] for name in tables.STEP.names or ()) for row in rows], tables.STEP)
        self.structure = TrainingTables(
            steps=steps,
            segments=_segments(steps),
            kept=marks,
            runs=self._runs(steps, products.arrays["columns"]),
            undecayed=self.undecayed,
            **products.arrays,
        )

    def _input_row(self) -> dict[str, Any]:
        slot = self.values[self.plan.inputs]
        channels, height, width = self.plan.example
        plane, line = slot.plane, slot.line
        if self.plan.inputs.shape != self.plan.example:  # its pixels are features
            plane, line = height * width, width
        row = _empty_row() | {"kind": tables.INPUT, "x": slot.at(), "x_plane": plane, "x_line": line}
        sizes = {"in_height": height, "in_width": width, "height": height, "width": width}
        return row | {"channels": channels, "rows": channels} | sizes

    def _row(self, operation: TrainingOperation) -> dict[str, Any]:
        source, out, addend = operation.source, operation.out, operation.addend
        x, y = self.values[source], self.values[out]
        row = _empty_row() | {"x": x.at(), "x_plane": x.plane, "x_line": x.line}
        row |= {"y": y.at(), "y_plane": y.plane, "y_line": y.line, "relu": out.relu, "x_relu": source.relu}
        row["channels"], row["in_height"], row["in_width"] = source.shape
        row["rows"], row["height"], row["width"] = out.shape
        if out in self.gradients:
            dy = self.gradients[out]
            row |= {"dy": dy.at(), "dy_plane": dy.plane, "dy_line": dy.line}
        if source in self.gradients and out in self.gradients:
            row |= self._gradient_fields("dx", source, operation)
        if addend is not None:
            a = self.values[addend]
            row |= {"a": a.at(), "a_plane": a.plane, "a_line": a.line, "a_relu": addend.relu}
            if addend in self.gradients:
                row |= self._gradient_fields("da", addend, operation)
        if isinstance(operation, Pool):
            row["kind"] = tables.AVERAGE_POOL if operation.average else tables.MAX_POOL
            row["top"], row["left"] = operation.padding
            row["kernel_h"], row["kernel_w"] = operation.kernel
            row["dilation_h"], row["dilation_w"] = operation.dilation
            row["tiles"] = operation.tiles
        else:
            row["kind"] = _KINDS[type(operation)]
        if isinstance(operation, Pool | Copy | LayerProduct):
            row["stride_h"], row["stride_w"] = operation.stride
        if isinstance(operation, BatchNorm):
            row |= {"eps": operation.eps, "momentum": operation.momentum}
        if isinstance(operation, Dropout):
            row["probability"] = operation.probability
        if isinstance(operation, LayerProduct):
            top, _, left, _ = operation.padding
            row |= {"x": x.at(0, -top, -left), "top": top, "left": left, "linear": operation.linear}
            row["kernel_h"], row["kernel_w"] = operation.kernel
            row["whole"] = operation.linear or self.plan.of_features
        return row

    def _runs(self, steps: Records, columns: Indices) -> npt.NDArray[np.int64]:
        """`TrainingTables.runs`. To fetch examples takes a large part of a step of a very sparse network, so groups
        of 16 features that no kept weight reads are left out."""
        first, features = steps[1], self.plan.inputs.shape[0]
        alone = [self.plan.inputs in (op.source, op.addend) for op in self.plan.operations].count(True) == 1
        if not (self.plan.of_features and alone and first["sparse"] and first["x_plane"] == 1) or features < LANES:
            return runs_of(self.values[self.plan.inputs].pixels)
        read = columns[first["entry"] : first["entry"] + first["entries"]]
        begins = np.unique(np.minimum(read // LANES * LANES, features - LANES)).astype(np.int64)
        return np.stack([begins, begins, np.full_like(begins, LANES)], axis=1)

    def _gradient_fields(self, field: str, activation: Activation, reader: TrainingOperation) -> dict[str, Any]:
        slot = self.gradients[activation]
        top, bottom, left, right = slot.image.padding
        last = [op for op in self.plan.operations if activation in (op.source, op.addend)][-1]
        return {
            field: slot.at(),
            f"{field}_plane": slot.plane,
            f"{field}_line": slot.line,
            f"{field}_first": reader is last,
            **{f"{field}_top": top, f"{field}_left": left, f"{field}_bottom": bottom, f"{field}_right": right},
        }

    def pack(self, state: State) -> Floats:
        """The flat parameters of a `state_dict`; pruned weights are zero."""
        parameters: Floats = aligned(self.size)
        for name, slot in self.slots.items():
            flat = state[name].detach().numpy().reshape(-1)
            parameters[slot.begin : slot.end] = flat if slot.order is None else flat[slot.order]
        parameters *= self.structure.kept
        return parameters

    def unpack(self, parameters: Floats) -> State:
        """The named parameters in flat ones."""
        state = {}
        for name, slot in self.slots.items():
            flat = np.zeros(math.prod(slot.shape), np.float32)
            flat[slice(None) if slot.order is None else slot.order] = parameters[slot.begin : slot.end]
            state[name] = torch.from_numpy(flat.reshape(slot.shape))
        return state

    def weights(self, state: State, moments: int = 0) -> TrainingWeights:
        """The weights of a `state_dict`, and so many moments of an optimizer, which are zero."""
        parameters, nothing = self.pack(state), np.empty(0, np.float32)
        statistics = {array: np.zeros(self.channels, np.float32) for array in STATISTICS.values()}
        for buffer, array in STATISTICS.items():
            for layer, where in self.statistics.items():
                statistics[array][where] = state[entry(layer, buffer)].numpy()
        return TrainingWeights(
            parameters,
            gradients=aligned(parameters.size),
            first=aligned(parameters.size) if moments > 0 else nothing,
            second=aligned(parameters.size) if moments > 1 else nothing,
            **statistics,
        )

    def unpack_statistics(self, weights: TrainingWeights) -> State:
        """The named running statistics."""
        return {
            entry(layer, buffer): torch.tensor(getattr(weights, array)[where])
            for buffer, array in STATISTICS.items()
            for layer, where in self.statistics.items()
        }

    def _scratch(self, examples: int) -> int:
        """Floats that `dense_update` needs."""
        sizes = [int(step["entries"]) for step in self.structure.steps if step["by_rows"]]
        return max(-(-size // GRADIENT_COLUMNS) * GRADIENT_COLUMNS * examples + ROWS * size for size in sizes or [0])

    def workspace(self, examples: int, training: bool) -> Workspace:
        """A workspace for so many examples at once, at least."""
        n = padded(examples) if self.plan.of_features else LANES
        groups = 1 if self.plan.of_features else -(-examples // LANES)
        group_size, back_group_size = self.pixels * n + GAP, self.back_pixels * n + GAP
        sparse = len(self.structure.back_places) if training else 0
        return Workspace(
            n=n,
            groups=groups,
            group_size=group_size,
            back_group_size=back_group_size,
            hop=LANES if groups == 1 else group_size,
            back_hop=LANES if groups == 1 else back_group_size,
            vectors=n // LANES * groups,
            activations=aligned(groups * group_size),
            deltas=aligned(groups * back_group_size if training else 0),
            transposed=np.zeros(sparse, np.float32),
            valid=aligned(groups * n),
            sums=np.zeros(2 * self.channels, np.float64),
            mean=np.zeros(self.channels, np.float64),
            deviation=np.zeros(self.channels, np.float64),
            logits=np.zeros(self.plan.logits.shape[0] * n, np.float32),
            scratch=aligned(self._scratch(groups * n) if training else 0),
        )


def _empty_row() -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(tables.STEP.names or (), 0)
    row |= dict.fromkeys(("kernel_h", "kernel_w", "stride_h", "stride_w", "dilation_h", "dilation_w"), 1)
    return row | dict.fromkeys(("a", "dx", "da", "bias", "scale", "statistics", "sums"), -1)


def _values(plan: TrainingPlan) -> dict[Activation, ImageSlot]:
    """A slot for the values of each activation: all are needed until the backward pass."""
    slots: dict[Activation, ImageSlot] = {}
    begin = 0
    for activation in (plan.inputs, *(operation.out for operation in plan.operations)):
        slots[activation] = ImageSlot(activation.values, begin)
        begin = slots[activation].end
    return slots


def _gradients(plan: TrainingPlan) -> dict[Activation, ImageSlot]:
    """A slot for the gradient of each activation that needs one, from its last reader to its own operation."""
    count = len(plan.operations)
    lifetimes = {}
    for index, activation in enumerate((plan.inputs, *(operation.out for operation in plan.operations))):
        if activation.trained:
            readers = [number for number, one in enumerate(plan.operations) if activation in (one.source, one.addend)]
            written = count - max(readers, default=count)
            # Only zeros that are written again may lie in memory that is shared: those around the logits are not.
            read = count - index + 1 if readers else count + 1
            lifetimes[activation] = Lifetime(activation.gradients, written, read)
    slots = allocate(list(lifetimes.values()))
    return {activation: slots[lifetime.image] for activation, lifetime in lifetimes.items()}


def _set_sums(rows: list[dict[str, Any]], norms: list[tuple[dict[str, Any], BatchNorm]], plan: TrainingPlan) -> None:
    """Let the step before each batch norm add up its statistics."""
    by_output = {plan.inputs: rows[0]} | {op.out: row for op, row in zip(plan.operations, rows[1:], strict=True)}
    for row, norm in norms:
        by_output[norm.source]["sums"] = row["statistics"]


def _segments(steps: Records) -> npt.NDArray[np.int64]:
    begins = [0]
    for index in range(1, len(steps)):
        if steps[index]["kind"] == tables.NORM or steps[index]["whole"] or steps[index - 1]["whole"]:
            begins.append(index)
    return np.array([*zip(begins, [*begins[1:], len(steps)], strict=True)], np.int64)
