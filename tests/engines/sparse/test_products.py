from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola.engines.sparse.packed import SparsityPattern, grouped
from tombola.engines.sparse.products import columns_of, sampled_product, sparse_times_dense, take


def floats(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 300),
    width=st.integers(1, 10).map(lambda n: 16 * n),
    density=st.floats(0, 1),
    seed=st.integers(0, 999),
)
def test_products_are_those_of_the_dense_matrix(
    rows: int, columns: int, width: int, density: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    kept = random.random((rows, columns)) < density
    matrix, x, left = (
        floats(random, rows, columns) * kept,
        floats(random, columns, width),
        floats(random, rows, width),
    )
    pattern = SparsityPattern.of(kept)
    values = matrix.reshape(-1)[pattern.order]
    assert np.array_equal(np.sort(pattern.order), np.flatnonzero(kept))

    out = np.full(rows * width, np.nan, np.float32)
    sparse_times_dense(values, pattern.columns, pattern.bounds, rows, width, x.reshape(-1), width, out)
    np.testing.assert_allclose(out.reshape(rows, width), matrix @ x, rtol=1e-4, atol=1e-4)

    gradient = np.zeros(values.size, np.float32)
    sampled_product(
        pattern.columns, pattern.bounds, rows, width, left.reshape(-1), width, x.reshape(-1), width, gradient
    )
    np.testing.assert_allclose(gradient, (left @ x.T).reshape(-1)[pattern.order], rtol=1e-4, atol=1e-4)

    turned, places = pattern.transposed(columns)
    turned_values = np.empty(values.size, np.float32)
    take(values, places, turned_values)
    out = np.full(columns * width, np.nan, np.float32)
    sparse_times_dense(turned_values, turned.columns, turned.bounds, columns, width, left.reshape(-1), width, out)
    np.testing.assert_allclose(out.reshape(columns, width), matrix.T @ left, rtol=1e-4, atol=1e-4)
    assert np.array_equal(matrix.T.reshape(-1)[turned.order], turned_values)


@pytest.mark.parametrize("features", [1, 16, 50, 64, 100])
@pytest.mark.parametrize("batch", [1, 16, 60])
def test_examples_become_columns(features: int, batch: int) -> None:
    random = np.random.default_rng(0)
    x, rows = floats(random, 80, features), random.integers(0, 80, batch)
    width = -(-batch // 16) * 16
    out = np.full(features * width, np.nan, np.float32)
    columns_of(x, rows, width, np.empty(width, np.int64), out)
    assert np.array_equal(out.reshape(features, width)[:, :batch], x[rows].T)
    assert np.array_equal(out.reshape(features, width)[:, batch:], np.repeat(x[rows[:1]].T, width - batch, axis=1))


def test_entries_are_grouped_in_their_own_order() -> None:
    places, bounds = grouped(np.array([2, 0, 2, 0], np.int32), 4)
    assert places.tolist() == [1, 3, 0, 2]
    assert bounds.tolist() == [0, 2, 2, 4, 4]
