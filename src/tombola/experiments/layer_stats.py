"""Statistics of the layers of a trained run: which weights are kept, and how training changed them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tombola.experiments.layer_units import UnitStats, unit_stats
from tombola.pruning.mask import State
from tombola.pruning.structures import UNSTRUCTURED, Structure
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun

BINS = 64
"""The bins of a histogram of initial weights, of equal width from -4 to 4 times the root mean square of the dense
layer's initial weights; the first and the last also hold the weights beyond."""

REACH = 4.0
"""In root mean squares."""


@dataclass(frozen=True)
class LayerStats:
    """One prunable layer of one trained run."""

    layer: str
    weights: int
    """The number of kept weights."""
    weights_total: int
    """The number of weights in the dense layer."""
    sign_changes: int | None
    """How many kept weights changed their sign in training; None if it diverged."""
    distance: float | None
    """The L2 norm of the change of the kept weights in training; None if it diverged."""
    start_norm: float
    """The L2 norm of the initial values of the kept weights."""
    start_histogram: list[int]
    """How many kept weights have their initial value in each bin; see `BINS`."""
    input_connections: list[int] | None
    """For a linear layer that reads the examples: the number of kept weights of each input, in row-major order; for
    images with channels, of each pixel."""
    outputs: int | None = None
    """This field and those below are the fields of `UnitStats`; None unless units are pruned."""
    inputs: int | None = None
    multiply_adds: int | None = None


def layer_stats(
    run: BaseRun, start: State, outcome: Outcome, structure: Structure = UNSTRUCTURED
) -> list[LayerStats]:
    """The layers of a run that began with the state `start`, in the network's order. `structure` is that of the
    search."""
    diverged, inputs, units = outcome.measures.diverged, run.start.network.inputs, unit_stats(structure, run.mask)
    layers = [
        _layer(name, kept, start[name], outcome.final[name], diverged, inputs if index == 0 else None)
        for index, (name, kept) in enumerate(run.mask.items())
    ]
    return [replace(each, **vars(units.get(each.layer, UnitStats()))) for each in layers]


def _layer(
    name: str, kept: Tensor, start: Tensor, final: Tensor, diverged: bool, inputs: tuple[int, ...] | None
) -> LayerStats:
    before, after = _selected(kept, start, final)
    (unpruned,) = _selected(start != 0, start)
    width = 2 * REACH / BINS * max(float(unpruned.square().mean().nan_to_num().sqrt()), 1e-30)
    bins = before.nan_to_num().div_(width).add_(BINS / 2).floor_().clamp_(0, BINS - 1).to(torch.uint8)
    connections = None
    if inputs is not None and kept.dim() == 2 and kept.shape[1] == math.prod(inputs):
        channels = inputs[0] if len(inputs) == 3 else 1
        connections = kept.sum(0).view(channels, -1).sum(0).tolist()
    return LayerStats(
        name,
        int(kept.sum()),
        kept.numel(),
        None if diverged else int((torch.sign(before) * torch.sign(after) < 0).sum()),
        None if diverged else float(torch.linalg.vector_norm(after - before)),
        float(torch.linalg.vector_norm(before).nan_to_num()),
        torch.bincount(bins, minlength=BINS).tolist(),
        connections,
    )


def _selected(chosen: Tensor, *tensors: Tensor) -> list[Tensor]:
    """The `chosen` elements of each tensor, in row-major order. Indexing by a mask takes several times as long."""
    if chosen.all():
        return [tensor.flatten() for tensor in tensors]
    indices = chosen.flatten().nonzero().squeeze(1)
    return [tensor.flatten().index_select(0, indices) for tensor in tensors]
