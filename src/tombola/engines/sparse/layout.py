"""Layout: where the numbers of a stack are, in the flat arrays that compiled code works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tombola.engines.sparse import loop
from tombola.engines.sparse.packed import Pattern
from tombola.engines.sparse.products import Floats
from tombola.engines.sparse.stack import Layer, Stack
from tombola.engines.sparse.vectors import LANES
from tombola.mask import Mask, State

DENSE_ABOVE = 0.7
"""Layers of which more than this fraction is left are multiplied dense, masked: there BLAS is faster."""


def padded(size: int) -> int:
    """`size`, rounded up to whole vectors."""
    return -(-size // LANES) * LANES


@dataclass(frozen=True)
class Place:
    """Where a layer's numbers are among the parameters."""

    layer: Layer
    kept: npt.NDArray[np.bool_]
    """Which weights are left: (outputs, inputs)."""
    pattern: Pattern | None
    """Of a sparse layer, whose pruned weights are not there; in a dense one they are, and are zero."""
    weights: slice
    biases: slice

    @property
    def prefix(self) -> str:
        """Of the layer's names in a `state_dict`."""
        return f"{self.layer.name}." if self.layer.name else ""


class Layout:
    """Lays out the parameters of `stack` under `mask`, and the patterns of its sparse layers."""

    def __init__(self, stack: Stack, mask: Mask) -> None:
        self.stack = stack
        self.places: list[Place] = []
        rows: list[list[int]] = []
        patterns, turned, turns, kept = [], [], [], []
        size = unit = entry = bound = back = 0
        for layer in stack.layers:
            place = _place(layer, mask, size)
            count = place.weights.stop - place.weights.start
            masked = place.pattern is None and not place.kept.all()
            bias = place.biases.start if layer.bias else -1
            row = [layer.inputs, layer.outputs, place.weights.start, place.weights.stop, bias]
            row += [place.pattern is not None, masked, layer.relu, unit, entry]
            kept += [place.kept.reshape(-1) if masked else np.ones(count), np.ones(layer.outputs * layer.bias)]
            if place.pattern is None:
                rows.append([*row, 0, 0, 0, 0])
            else:
                transposed, turn = place.pattern.transposed(layer.inputs)
                bounds, backs = bound + place.pattern.bounds.size, back + transposed.bounds.size
                rows.append([*row, bound, bounds, back, backs])
                entry, bound, back = entry + count, bounds, backs
                patterns.append(place.pattern)
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
        """The parameters of a `state_dict`."""
        parameters = np.zeros(padded(self.size), np.float32)
        for place in self.places:
            matrix = state[f"{place.prefix}weight"].numpy()
            flat = (matrix * place.kept).reshape(-1)
            parameters[place.weights] = flat if place.pattern is None else flat[place.pattern.order]
            if place.layer.bias:
                parameters[place.biases] = state[f"{place.prefix}bias"].numpy()
        return parameters

    def unpack(self, parameters: Floats) -> State:
        """The `state_dict` that has these parameters."""
        state = {}
        for place in self.places:
            matrix = np.zeros(place.kept.shape, np.float32)
            places = slice(None) if place.pattern is None else place.pattern.order
            matrix.reshape(-1)[places] = parameters[place.weights]
            state[f"{place.prefix}weight"] = torch.from_numpy(matrix)
            if place.layer.bias:
                state[f"{place.prefix}bias"] = torch.from_numpy(parameters[place.biases].copy())
        return state

    def rooms(self, width: int) -> loop.Rooms:
        """Working space for `width` examples side by side."""
        inputs, units = self.stack.layers[0].inputs, sum(layer.outputs for layer in self.stack.layers)
        largest = max((place.weights.stop - place.weights.start for place in self.places if place.pattern), default=0)
        return loop.Rooms(
            inputs=np.zeros(inputs * width, np.float32),
            activations=np.zeros(units * width, np.float32),
            deltas=np.zeros(units * width, np.float32),
            factors=np.zeros(max(inputs, units) * width if self.shape.dropout.any() else 0, np.float32),
            turned=np.zeros(largest, np.float32),
        )


def _place(layer: Layer, mask: Mask, begin: int) -> Place:
    name = f"{layer.name}.weight" if layer.name else "weight"
    kept = mask[name].numpy() if name in mask else np.ones((layer.outputs, layer.inputs), bool)
    pattern = Pattern.of(kept) if kept.mean() <= DENSE_ABOVE else None
    end = begin + (kept.size if pattern is None else pattern.columns.size)
    return Place(layer, kept, pattern, slice(begin, end), slice(end, end + layer.outputs * layer.bias))


def _joined(arrays: list[Any], kind: type[np.generic]) -> npt.NDArray[Any]:
    return np.concatenate([np.empty(0, kind), *arrays]).astype(kind, copy=False)
