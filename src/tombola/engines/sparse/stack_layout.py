"""The layout of a stack's parameters in the flat arrays of the compiled kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tombola.engines.sparse import stack_kernels
from tombola.engines.sparse.stack import Stack, StackLayer
from tombola.kernels.products import Floats
from tombola.kernels.sparsity_pattern import SparsityPattern
from tombola.kernels.vectors import LANES
from tombola.pruning.mask import Mask, State

DENSE_ABOVE = 0.7
"""Layers of a higher density are multiplied dense and masked, because BLAS is faster there."""


def padded(size: int) -> int:
    """`size`, rounded up to whole vectors."""
    return -(-size // LANES) * LANES


@dataclass(frozen=True)
class ParameterSlot:
    """The position of a layer in the parameters."""

    layer: StackLayer
    order: npt.NDArray[np.int64] | None
    """Of a sparse layer, the indices of its entries in the flattened matrix; None for a dense layer."""
    weights: slice
    biases: slice

    @property
    def prefix(self) -> str:
        """Of the layer's entries in a `state_dict`."""
        return f"{self.layer.name}." if self.layer.name else ""


class StackLayout:
    """The positions of the parameters of `stack` under `mask`, and the patterns of its sparse layers."""

    def __init__(self, stack: Stack, mask: Mask) -> None:
        self.stack = stack
        self.slots: list[ParameterSlot] = []
        rows: list[list[int]] = []
        patterns, transposes, orders, kept = [], [], [], []
        size = unit = entry = bound = back = 0
        for layer in stack.layers:
            name = layer.weight
            layer_mask = mask[name].numpy() if name in mask else np.ones((layer.outputs, layer.inputs), bool)
            pattern = SparsityPattern.of(layer_mask) if layer_mask.mean() <= DENSE_ABOVE else None
            count = layer_mask.size if pattern is None else pattern.order.size
            end = size + count
            slot = ParameterSlot(
                layer,
                None if pattern is None else pattern.order,
                weights=slice(size, end),
                biases=slice(end, end + layer.outputs * layer.bias),
            )
            masked = pattern is None and not layer_mask.all()
            row = [layer.inputs, layer.outputs, size, end, end if layer.bias else -1]
            row += [pattern is not None, masked, layer.relu, unit, entry]
            kept.append(layer_mask.reshape(-1).view(np.uint8) if masked else np.ones(count, np.uint8))
            kept.append(np.ones(layer.outputs * layer.bias, np.uint8))
            if pattern is None:
                rows.append([*row, 0, 0, 0, 0])
            else:
                transposed, order = pattern.transposed(layer.inputs)
                bounds, backs = bound + pattern.bounds.size, back + transposed.bounds.size
                rows.append([*row, bound, bounds, back, backs])
                entry, bound, back = entry + count, bounds, backs
                patterns.append(pattern)
                transposes.append(transposed)
                orders.append(order)
            size, unit = slot.biases.stop, unit + layer.outputs
            self.slots.append(slot)
        self.size = size
        self.structure = stack_kernels.StackStructure(
            layers=np.array(rows, np.int64),
            dropout=np.array([stack.dropout, *(layer.dropout for layer in stack.layers)], np.float32),
            columns=_concatenated([pattern.columns for pattern in patterns], np.int32),
            bounds=_concatenated([pattern.bounds for pattern in patterns], np.int32),
            back_columns=_concatenated([pattern.columns for pattern in transposes], np.int32),
            back_bounds=_concatenated([pattern.bounds for pattern in transposes], np.int32),
            back_places=_concatenated(orders, np.int32),
            kept=_concatenated(kept, np.uint8),
        )

    def pack(self, state: State) -> Floats:
        """The flat parameters of a `state_dict`; pruned weights are zero."""
        parameters = np.zeros(padded(self.size), np.float32)
        for slot in self.slots:
            matrix = state[f"{slot.prefix}weight"].numpy()
            flat = matrix.reshape(-1)
            parameters[slot.weights] = flat if slot.order is None else flat[slot.order]
            if slot.layer.bias:
                parameters[slot.biases] = state[f"{slot.prefix}bias"].numpy()
        parameters[: self.size] *= self.structure.kept
        return parameters

    def unpack(self, parameters: Floats) -> State:
        """The `state_dict` of flat parameters."""
        state = {}
        for slot in self.slots:
            matrix = np.zeros((slot.layer.outputs, slot.layer.inputs), np.float32)
            order = slice(None) if slot.order is None else slot.order
            matrix.reshape(-1)[order] = parameters[slot.weights]
            state[f"{slot.prefix}weight"] = torch.from_numpy(matrix)
            if slot.layer.bias:
                state[f"{slot.prefix}bias"] = torch.from_numpy(parameters[slot.biases].copy())
        return state

    def workspace(self, width: int) -> stack_kernels.Workspace:
        """A workspace for `width` examples."""
        inputs, units = self.stack.layers[0].inputs, sum(layer.outputs for layer in self.stack.layers)
        largest = max(
            (slot.weights.stop - slot.weights.start for slot in self.slots if slot.order is not None), default=0
        )
        return stack_kernels.Workspace(
            inputs=np.zeros(inputs * width, np.float32),
            activations=np.zeros(units * width, np.float32),
            deltas=np.zeros(units * width, np.float32),
            factors=np.zeros(max(inputs, units) * width if self.structure.dropout.any() else 0, np.float32),
            transposed=np.zeros(largest, np.float32),
        )


def _concatenated(arrays: list[Any], kind: type[np.generic]) -> npt.NDArray[Any]:
    return np.concatenate([np.empty(0, kind), *arrays]).astype(kind, copy=False)
