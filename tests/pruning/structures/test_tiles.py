"""Tiles."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tombola
from tests.support.prunable_networks import Experts
from tests.support.structures import assert_whole, conv1d, prune
from tombola.pruning.mask import Mask
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.structures.layer_units import blocks


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.floats(0.01, 0.9))
def test_tiles_are_pruned_whole_also_at_the_edges(
    rows: int, columns: int, height: int, width: int, rate: float
) -> None:
    made = nn.Linear(columns, rows)
    mask = prune(blocks(PrunableNetwork(made), height, width), Mask.full(made), rate)["weight"]
    tiles = [tile for band in mask.split(height, 0) for tile in band.split(width, 1)]
    assert all(tile.all() or not tile.any() for tile in tiles)
    assert sum(bool(tile.any()) for tile in tiles) == len(tiles) - round(rate * len(tiles))


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.ConvTranspose1d])
@pytest.mark.parametrize("groups", [1, 2])
def test_tiles_of_convolutions_are_those_of_outputs_by_inputs(kind: type[nn.Module], groups: int) -> None:
    made = kind(4, 8, 2, groups=groups)
    mask = prune(blocks(PrunableNetwork(made), 2, 4), Mask.full(made), 0.5)["weight"]
    if kind is nn.ConvTranspose1d:  # [4, 8 / groups, 2]
        mask = torch.cat([part.transpose(0, 1) for part in mask.chunk(groups)])
    tiles = [tile for band in mask.flatten(1).split(2, 0) for tile in band.split(4, 1)]
    assert all(tile.all() or not tile.any() for tile in tiles)
    assert sum(bool(tile.any()) for tile in tiles) == len(tiles) // 2


def whole_tiles(matrices: list[Tensor], height: int, width: int) -> list[bool]:
    """Which tiles are left of matrices [rows, columns]; each is whole or gone whole."""
    tiles = [tile for each in matrices for band in each.split(height, 0) for tile in band.split(width, 1)]
    assert all(tile.all() or not tile.any() for tile in tiles)
    return [bool(tile.any()) for tile in tiles]


def test_tiles_do_not_cross_experts_or_projections() -> None:
    mask = tombola.prune(Experts(), 0.5, structure="blocks:3x3", leave_out=["gate", "head"])
    left = whole_tiles(list(mask["experts"]), 3, 3)  # three of 4 x 4
    assert (len(left), sum(left)) == (12, 6)
    parts = tombola.prune(nn.MultiheadAttention(6, 2), 0.25, structure="blocks:4x4").layers.values()
    assert [(len(left), sum(left)) for left in (whole_tiles([part], 4, 4) for part in parts)] == [(4, 1)] * 4


def test_tiles_of_conv1d_and_bilinear_layers_are_of_outputs_by_inputs() -> None:
    left = whole_tiles([tombola.prune(conv1d(6, 4), 0.25, structure="blocks:2x3")["weight"].t()], 2, 3)
    assert (len(left), sum(left)) == (4, 1)
    mask = tombola.prune(nn.Bilinear(2, 3, 4), 0.25, structure="blocks:2x3")["weight"]
    left = whole_tiles([mask.flatten(1)], 2, 3)
    assert (len(left), sum(left)) == (4, 1)


def test_rows_of_embeddings_are_pruned_by_tiles() -> None:
    network = nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 2))
    mask = tombola.prune(network, {"0": 0.25}, structure="blocks:1x4", include=["0"])
    assert sum(assert_whole([mask["0.weight"]])) == 2
    assert mask["1.weight"].all()
