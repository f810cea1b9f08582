from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola.kernels.single_products import dense_stream, sparse_stream

UNTOUCHED = np.float32(-77)


@settings(deadline=None, max_examples=150)
@given(
    width=st.integers(1, 150), rows=st.integers(1, 4), dense=st.booleans(), addend=st.booleans(), relu=st.booleans(),
    seed=st.integers(0, 999),
)  # fmt: skip
def test_a_product_for_one_example_is_a_weighted_sum_for_each_row(
    width: int, rows: int, dense: bool, addend: bool, relu: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    source = rng.standard_normal(8 + 4 * width, np.float32)
    counts = np.full(rows, 20) if dense else rng.integers(0, 7, rows)
    bounds = np.cumsum([0, *counts]).astype(np.int32)
    columns = np.tile(rng.integers(-3, 5, 20), rows)[: bounds[-1]].astype(np.int32)
    values, biases = rng.standard_normal(len(columns), np.float32), rng.standard_normal(rows, np.float32)
    base, offset, pitch = 3, 5, width + 3
    out = np.full(5 + rows * pitch + 40, UNTOUCHED)
    least = np.float32(0 if relu else -np.inf)
    where = 7 if addend else -1
    streams = biases, least, source, base, width, out, offset, pitch, source, width, where
    if dense:
        dense_stream(values, 0, np.arange(20, dtype=np.int32), columns[:20], *streams)
    else:
        sparse_stream(values, columns, bounds, *streams)
    for r in range(rows):
        expected = np.full(width, biases[r], np.float64)
        for i in range(bounds[r], bounds[r + 1]):
            begin = base + int(columns[i])
            expected += values[i].astype(np.float64) * source[begin : begin + width]
        if addend:
            expected += source[7 + r * width : 7 + (r + 1) * width]
        begin = offset + r * pitch
        assert np.allclose(out[begin : begin + width], np.maximum(expected, least), rtol=0, atol=1e-5)
        out[begin : begin + width] = UNTOUCHED
    assert (out == UNTOUCHED).all()


@pytest.mark.parametrize("width", [1, 16, 80])
@pytest.mark.parametrize("relu", [False, True])
def test_nan_stays_nan_through_relu(width: int, relu: bool) -> None:
    source = np.tile(np.array([math.nan, math.inf, -math.inf, 1.0, -1.0], np.float32), 17)[:80]
    out, one = np.empty(width, np.float32), np.ones(1, np.float32)
    least = np.float32(0 if relu else -np.inf)
    for first in range(5):
        rolled = np.roll(source, -first)
        args = np.array([0, 1], np.int32), np.zeros(1, np.float32), least, rolled, 0, width, out, 0, width, out, 0, -1
        sparse_stream(one, np.zeros(1, np.int32), *args)
        expected = torch.from_numpy(rolled[:width])
        assert np.array_equal(out, torch.relu(expected) if relu else expected, equal_nan=True)
