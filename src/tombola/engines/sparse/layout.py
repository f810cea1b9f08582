"""Layout: where the numbers of a stack are, in the flat arrays that compiled code works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tombola.engines.sparse import loop
from tombola.engines.sparse.packed import SparsityPattern
from tombola.engines.sparse.products import Floats
from tombola.engines.sparse.stack import Stack, StackLayer
from tombola.engines.sparse.vectors import LANES
from tombola.pruning.mask import Mask, State

DENSE_ABOVE = 0.7
"""Layers of which more than this fraction is left are multiplied dense, masked: there BLAS is faster."""


def padded(size: int) -> int:
    """`size`, rounded up to whole vectors."""
    return -(-size // LANES) * LANES


@dataclass(frozen=True)
class ParameterSlot:
    """Where a layer's numbers are among the parameters."""

    layer: StackLayer
    order: npt.NDArray[np.int64] | None
    """Of a sparse layer: which entries of the flattened matrix are there. In a dense one all are."""
    weights: slice
    biases: slice

    @property
    def prefix(self) -> str:
        """Of the layer's names in a `state_dict`."""
        return f"{self.layer.name}." if self.layer.name else ""


class StackLayout:
    """Lays out the parameters of `stack` under `mask`, and the patterns of its sparse layers."""

    def __init__(self, stack: Stack, mask: Mask) -> None:
        self.stack = stack
        self.places: list[ParameterSlot] = []
        rows: list[list[int]] = []
        patterns, turned, turns, kept = [], [], [], []
        size = unit = entry = bound = back = 0
        for layer in stack.layers:
            name = f"{layer.name}.weight" if layer.name else "weight"
            left = mask[name].numpy() if name in mask else np.ones((layer.outputs, layer.inputs), bool)
            pattern = SparsityPattern.of(left) if left.mean() <= DENSE_ABOVE else None
            count = left.size if pattern is None else pattern.order.size
            end = size + count
            place = ParameterSlot(
                layer,
                None if pattern is None else pattern.order,
                weights=slice(size, end),
                biases=slice(end, end + layer.outputs * layer.bias),
            )
            masked = pattern is None and not left.all()
            row = [layer.inputs, layer.outputs, size, end, end if layer.bias else -1]
            row += [pattern is not None, masked, layer.relu, unit, entry]
            kept.append(left.reshape(-1).view(np.uint8) if masked else np.ones(count, np.uint8))
            kept.append(np.ones(layer.outputs * layer.bias, np.uint8))
            if pattern is None:
                rows.append([*row, 0, 0, 0, 0])
            else:
                transposed, turn = pattern.transposed(layer.inputs)
                bounds, backs = bound + pattern.bounds.size, back + transposed.bounds.size
                rows.append([*row, bound, bounds, back, backs])
                entry, bound, back = entry + count, bounds, backs
                patterns.append(pattern)
                turned.append(transposed)
                turns.append(turn)
            size, unit = place.biases.stop, unit + layer.outputs
            self.places.append(place)
        self.size = size
        self.shape = loop.Shape(
            layers=np.array(rows, np.int64),
            dropout=np.array([stack.dropout, *(layer.dropout for layer in stack.layers)], np.float32),
            columns=_joined([pattern.columns for pattern in patterns], np.int32),
            bounds=_joined([pattern.bounds for pattern in patterns], np.int32),
            back_columns=_joined([pattern.columns for pattern in turned], np.int32),
            back_bounds=_joined([pattern.bounds for pattern in turned], np.int32),
            back_places=_joined(turns, np.int32),
            kept=_joined(kept, np.uint8),
        )

    def pack(self, state: State) -> Floats:
        """The parameters of a `state_dict`; pruned weights are zero."""
        parameters = np.zeros(padded(self.size), np.float32)
        for place in self.places:
            matrix = state[f"{place.prefix}weight"].numpy()
            flat = matrix.reshape(-1)
            parameters[place.weights] = flat if place.order is None else flat[place.order]
            if place.layer.bias:
                parameters[place.biases] = state[f"{place.prefix}bias"].numpy()
        parameters[: self.size] *= self.shape.kept
        return parameters

    def unpack(self, parameters: Floats) -> State:
        """The `state_dict` that has these parameters."""
        state = {}
        for place in self.places:
            matrix = np.zeros((place.layer.outputs, place.layer.inputs), np.float32)
            places = slice(None) if place.order is None else place.order
            matrix.reshape(-1)[places] = parameters[place.weights]
            state[f"{place.prefix}weight"] = torch.from_numpy(matrix)
            if place.layer.bias:
                state[f"{place.prefix}bias"] = torch.from_numpy(parameters[place.biases].copy())
        return state

    def rooms(self, width: int) -> loop.Workspaces:
        """Working space for `width` examples side by side."""
        inputs, units = self.stack.layers[0].inputs, sum(layer.outputs for layer in self.stack.layers)
        largest = max(
            (place.weights.stop - place.weights.start for place in self.places if place.order is not None), default=0
        )
        return loop.Workspaces(
            inputs=np.zeros(inputs * width, np.float32),
            activations=np.zeros(units * width, np.float32),
            deltas=np.zeros(units * width, np.float32),
            factors=np.zeros(max(inputs, units) * width if self.shape.dropout.any() else 0, np.float32),
            turned=np.zeros(largest, np.float32),
        )


def _joined(arrays: list[Any], kind: type[np.generic]) -> npt.NDArray[Any]:
    return np.concatenate([np.empty(0, kind), *arrays]).astype(kind, copy=False)
