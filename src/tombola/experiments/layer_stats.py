"""Anatomy: what is left of each layer, and what training did to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tombola.runs.initial_state import Recall, initial_network, no_earlier_runs
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun

BINS = 64
"""The bins of a histogram of initial weights, of equal width from -4 to 4 times the root mean square of the dense
layer's initial weights; the first and the last also hold what lies further out."""

REACH = 4.0


@dataclass(frozen=True)
class LayerStats:
    """One prunable layer of one trained run."""

    layer: str
    weights: int
    """How many are left."""
    weights_total: int
    """How many the dense layer has."""
    sign_changes: int | None
    """How many of the weights left ended training with another sign than they began with; None if it diverged."""
    distance: float | None
    """How far training moved the weights left, in the L2 norm; None if it diverged."""
    start_norm: float
    """The L2 norm of the initial weights left."""
    start_histogram: list[int]
    """How many of the weights left began in each bin; see `BINS`."""
    input_connections: list[int] | None
    """Of a linear layer that reads the examples: how many weights are left at each number of an example, in row-major
    order; for images with channels, at each pixel."""


def layer_stats(run: BaseRun, outcome: Outcome, recall: Recall = no_earlier_runs) -> list[LayerStats]:
    """The layers of a run, in the network's order."""
    start = initial_network(run.start, recall).state_dict()
    diverged, inputs = outcome.measures.diverged, run.start.network.inputs
    return [
        _layer(name, kept, start[name], outcome.final[name], diverged, inputs if index == 0 else None)
        for index, (name, kept) in enumerate(run.mask.items())
    ]


def _layer(
    name: str, kept: Tensor, start: Tensor, final: Tensor, diverged: bool, inputs: tuple[int, ...] | None
) -> LayerStats:
    before, after = start[kept], final[kept]
    there = start[start != 0]  # what was pruned before is no weight to start from
    width = 2 * REACH / BINS * max(float(there.square().mean().nan_to_num().sqrt()), 1e-30)
    bins = torch.floor(before.nan_to_num() / width + BINS / 2).clamp(0, BINS - 1).long()
    reads = inputs is not None and kept.dim() == 2 and kept.shape[1] == math.prod(inputs)
    return LayerStats(
        name,
        int(kept.sum()),
        kept.numel(),
        None if diverged else int((torch.sign(before) * torch.sign(after) < 0).sum()),
        None if diverged else float(torch.linalg.vector_norm(after - before)),
        float(torch.linalg.vector_norm(before).nan_to_num()),
        torch.bincount(bins, minlength=BINS).tolist(),
        _by_pixel(kept.sum(0), inputs) if reads and inputs is not None else None,
    )


def _by_pixel(connections: Tensor, inputs: tuple[int, ...]) -> list[int]:
    channels = inputs[0] if len(inputs) == 3 else 1
    by_pixel: list[int] = connections.view(channels, -1).sum(0).tolist()
    return by_pixel
