"""Products against numpy, for all of their arguments."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola.kernels.products import (
    COLUMN_BLOCK,
    dense_gradient,
    dense_product,
    gather,
    sampled_product,
    sparse_product,
)
from tombola.kernels.sparsity_pattern import SparsityPattern, segments

Floats = npt.NDArray[np.float32]
NOTHING = np.empty(0, np.float32)
LOWEST = np.float32(-np.inf)
UNTOUCHED = np.float32(-77)
LANE = np.arange(16)


def floats(random: np.random.Generator, *shape: int) -> Floats:
    return random.standard_normal(shape).astype(np.float32)


@dataclass
class Case:
    """Streams of a product with a matrix of rows × columns, with gaps between vectors and between rows."""

    rows: int
    columns: int
    vectors: int
    hops: tuple[int, int, int]
    """Of the source, of `out`, and of the gate."""
    relu: bool
    biased: bool
    addend: str
    """`none`, `other` or `out`: where the addend lies."""
    gated: bool
    density: float
    seed: int

    def __post_init__(self) -> None:
        self.random = random = np.random.default_rng(self.seed)
        self.kept = random.random((self.rows, self.columns)) < self.density
        self.matrix = floats(random, self.rows, self.columns) * self.kept
        hop, out_hop, gate_hop = self.hops
        self.n = 16 + hop * self.vectors
        self.base = 7
        self.source = floats(random, self.base + self.columns * self.n)
        self.offset, self.pitch = 5, out_hop * self.vectors + 3
        self.addend_base, self.addend_pitch = {"none": -1, "other": 2, "out": self.offset}[self.addend], self.pitch
        self.gate_base, self.gate_pitch = 1 if self.gated else -1, gate_hop * self.vectors + 1
        self.out = floats(random, self.offset + self.rows * self.pitch + 40)
        self.other = floats(random, self.out.size)
        self.gate = floats(random, 1 + self.rows * self.gate_pitch)
        self.biases = floats(random, self.rows) if self.biased else NOTHING
        self.least = np.float32(0) if self.relu else LOWEST

    def places(self, base: int, pitch: int, rows: int, hop: int) -> Any:
        """Indices of (rows, numbers of the stream)."""
        steps = (np.arange(self.vectors)[:, None] * hop + LANE).reshape(-1)
        return base + np.arange(rows)[:, None] * pitch + steps

    @property
    def inputs(self) -> Floats:
        return self.source[self.places(self.base, self.n, self.columns, self.hops[0])]

    def expected(self) -> Floats:
        """All of `out`."""
        result = self.matrix.astype(np.float64) @ self.inputs
        if self.biased:
            result += self.biases[:, None]
        where = self.places(self.offset, self.pitch, self.rows, self.hops[1])
        if self.addend != "none":
            array = self.out if self.addend == "out" else self.other
            result += array[self.places(self.addend_base, self.addend_pitch, self.rows, self.hops[1])]
        result = np.maximum(result, self.least)
        if self.gated:
            result[self.gate[self.places(1, self.gate_pitch, self.rows, self.hops[2])] <= 0] = 0
        out = self.out.copy()
        out[where] = result
        return out

    def streams(self, out: Floats) -> tuple[Any, ...]:
        hop, out_hop, gate_hop = self.hops
        addend = out if self.addend == "out" else self.other
        return (
            *(self.source, self.base, self.n, hop, self.vectors, out, self.offset, self.pitch, out_hop),
            *(addend, self.addend_pitch, self.addend_base, self.gate, self.gate_base, self.gate_pitch, gate_hop),
        )


CASES = st.builds(
    Case,
    rows=st.integers(1, 20), columns=st.integers(1, 150), vectors=st.integers(1, 19),
    hops=st.tuples(*[st.sampled_from([16, 19, 32])] * 3), relu=st.booleans(), biased=st.booleans(),
    addend=st.sampled_from(["none", "other", "out"]), gated=st.booleans(),
    density=st.sampled_from([0.0, 0.03, 0.3, 1.0]), seed=st.integers(0, 999),
)  # fmt: skip


def blocks_of(kept: Any, count: int) -> tuple[Any, Any, Any]:
    """Columns, bounds and order of the entries of a matrix whose columns are divided into blocks."""
    columns, bounds, order = [], [0], []
    for part in np.array_split(np.arange(kept.shape[1]), count):
        for r in range(kept.shape[0]):
            some = part[kept[r, part]]
            columns += some.tolist()
            order += (r * kept.shape[1] + some).tolist()
            bounds.append(len(columns))
    return np.array(columns, np.int32), np.array(bounds, np.int32), np.array(order, np.int64)


@settings(max_examples=150, deadline=None)
@given(CASES, st.integers(1, 3))
def test_a_sparse_product_equals_that_of_numpy(case: Case, blocks: int) -> None:
    columns, bounds, order = blocks_of(case.kept, blocks)
    values = case.matrix.reshape(-1)[order]
    out = case.out.copy()
    sparse_product(values, columns, bounds, case.rows, case.biases, case.least, *case.streams(out))
    np.testing.assert_allclose(out, case.expected(), rtol=1e-4, atol=1e-4)


@settings(max_examples=150, deadline=None)
@given(CASES, st.booleans())
def test_a_dense_product_equals_that_of_numpy(case: Case, transposed: bool) -> None:
    out, numbers = case.out.copy(), np.arange(case.columns, dtype=np.int32)
    matrix = np.concatenate([np.full(3, math.nan), (case.matrix.T if transposed else case.matrix).reshape(-1)])
    steps = (1, numbers * case.rows) if transposed else (case.columns, numbers)
    weights = matrix.astype(np.float32), 3, *steps, numbers
    dense_product(*weights, case.rows, case.biases, case.least, *case.streams(out))
    np.testing.assert_allclose(out, case.expected(), rtol=1e-4, atol=1e-4)


def test_the_columns_of_a_dense_product_are_divided_into_blocks() -> None:
    for columns in (COLUMN_BLOCK, COLUMN_BLOCK + 1, 3 * COLUMN_BLOCK + 5):
        case = Case(7, columns, 5, (16, 16, 16), True, True, "out", True, 1.0, 0)
        out, numbers = case.out.copy(), np.arange(columns, dtype=np.int32)
        weights = case.matrix.reshape(-1), 0, columns, numbers, numbers
        dense_product(*weights, case.rows, case.biases, case.least, *case.streams(out))
        np.testing.assert_allclose(out, case.expected(), rtol=1e-4, atol=1e-4)


@settings(max_examples=100, deadline=None)
@given(CASES, st.integers(1, 3), st.sampled_from(["rows", "transposed", "scattered"]))
def test_gradients_are_added_and_equal_those_of_numpy(case: Case, blocks: int, layout: str) -> None:
    hop = case.hops[1]
    left = case.out
    pairs = left, case.offset, case.pitch, hop, case.source, case.base, case.n, case.hops[0], case.vectors
    inner = left[case.places(case.offset, case.pitch, case.rows, hop)].astype(np.float64) @ case.inputs.T
    columns, bounds, order = blocks_of(case.kept, blocks)
    begin = floats(case.random, order.size)
    gradient = begin.copy()
    sampled_product(columns, bounds, case.rows, *pairs, gradient)
    np.testing.assert_allclose(gradient, begin + inner.reshape(-1)[order], rtol=1e-4, atol=1e-3)

    numbers = np.arange(case.columns, dtype=np.int32)
    row_step, places = case.columns, numbers
    if layout == "transposed":
        row_step, places = 1, numbers * case.rows
    elif layout == "scattered":
        places = case.random.permutation(numbers).astype(np.int32)
    begin = floats(case.random, 4 + case.rows * case.columns)
    gradient, expected = begin.copy(), begin.astype(np.float64)
    dense_gradient(places, numbers, case.rows, 4, row_step, *pairs, gradient)
    expected[4 + np.arange(case.rows)[:, None] * row_step + places] += inner
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("rows", [1, 3, 16])
def test_the_bits_of_a_product_do_not_depend_on_the_tiles(rows: int) -> None:
    """Each vector and row by itself, in the smallest tiles, gives the same as all at once."""
    case = Case(rows, 70, 15, (16, 16, 16), True, True, "other", True, 0.4, 1)
    columns, bounds, order = blocks_of(case.kept, 2)
    values, numbers = case.matrix.reshape(-1)[order], np.arange(70, dtype=np.int32)
    weights = case.matrix.reshape(-1), 0, 70, numbers, numbers
    found = []
    for one_by_one in (False, True):
        for dense in (False, True):
            out = case.out.copy()
            for v in range(case.vectors if one_by_one else 1):
                source, base, n, hop, vectors, out_, offset, *rest = case.streams(out)
                addend, addend_pitch, addend_base, gate, gate_base, *gates = rest[2:]
                moved = (
                    *(source, base + v * 16, n, hop, 1 if one_by_one else vectors, out_, offset + v * 16, *rest[:2]),
                    *(addend, addend_pitch, addend_base + v * 16, gate, gate_base + v * 16, *gates),
                )
                if dense:
                    dense_product(*weights, rows, case.biases, case.least, *moved)
                else:
                    sparse_product(values, columns, bounds, rows, case.biases, case.least, *moved)
            found.append(out)
    assert np.array_equal(found[0], found[2])
    assert np.array_equal(found[1], found[3])


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_nan_stays_nan_through_relu(relu: bool, dense: bool) -> None:
    source = np.tile(np.array([math.nan, math.inf, -math.inf, 1.0, -1.0], np.float32), 16)
    one, number, least = np.ones(1, np.float32), np.zeros(1, np.int32), np.float32(0) if relu else LOWEST
    out, nowhere = np.empty(80, np.float32), (NOTHING, 0, -1, NOTHING, -1, 0, 0)
    rest = 1, NOTHING, least, source, 0, 1, 16, 5, out, 0, 80, 16, *nowhere
    if dense:
        dense_product(one, 0, 1, number, number, *rest)
    else:
        sparse_product(one, number, np.array([0, 1], np.int32), *rest)
    assert np.array_equal(out, np.maximum(source, least), equal_nan=True)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 40), columns=st.integers(1, 300), width=st.integers(1, 10).map(lambda n: 16 * n),
    density=st.floats(0, 1), seed=st.integers(0, 999),
)  # fmt: skip
def test_patterns_and_their_transposes(rows: int, columns: int, width: int, density: float, seed: int) -> None:
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

    def product(values: Floats, pattern: SparsityPattern, source: Floats) -> Floats:
        out = np.full(pattern.rows * width, np.nan, np.float32)
        streams = source.reshape(-1), 0, width, 16, width // 16, out, 0, width, 16, NOTHING, 0, -1, NOTHING, -1, 0, 0
        sparse_product(values, pattern.columns, pattern.bounds, pattern.rows, NOTHING, LOWEST, *streams)
        return out.reshape(pattern.rows, width)

    np.testing.assert_allclose(product(values, pattern, x), matrix @ x, rtol=1e-4, atol=1e-4)
    row, column = np.divmod(pattern.order, columns)
    places, bounds = segments(column, row, columns, rows)
    transposed = SparsityPattern(columns, row[places].astype(np.int32), bounds, places)
    transposed_values = np.empty(values.size, np.float32)
    gather(values, places, transposed_values)
    np.testing.assert_allclose(product(transposed_values, transposed, left), matrix.T @ left, rtol=1e-4, atol=1e-4)
