"""The two products that sparse training is made of, by technology: 300 × 784 weights, 64 examples, one thread.

    python -m benchmarks.kernels

GFLOP/s on the weights left, of the forward product and of the gradient at the places of the weights left. With
`NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=` tombola's kernels use AVX2 only.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Annotated

import numba
import numpy as np
import torch
import typer
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks.common import console, machine, median, take_turns, write
from tombola.kernels.products import aligned, dense_gradient, dense_product, sampled_product, sparse_product
from tombola.kernels.sparsity_pattern import SparsityPattern

ROWS, COLUMNS, WIDTH = 300, 784, 64


@numba.njit(nogil=True, fastmath=True)
def plain_product(values, columns, bounds, x, out):  # type: ignore[no-untyped-def]
    """As one writes it in numba, rows by themselves so that it can vectorise."""
    for r in range(bounds.size - 1):
        row = out[r]
        row[:] = 0
        for k in range(bounds[r], bounds[r + 1]):
            value, source = values[k], x[columns[k]]
            for t in range(row.size):
                row[t] += value * source[t]


@numba.njit(nogil=True, fastmath=True)
def plain_sampled(columns, bounds, left, x, out):  # type: ignore[no-untyped-def]
    """As one writes it in numba."""
    for r in range(bounds.size - 1):
        for k in range(bounds[r], bounds[r + 1]):
            row, source, total = left[r], x[columns[k]], np.float32(0)
            for t in range(row.size):
                total += row[t] * source[t]
            out[k] = total


def measure(density: float, calls: int, turns: int) -> dict[str, float]:
    """GFLOP/s by technology and product."""
    random = np.random.default_rng(0)
    kept = random.random((ROWS, COLUMNS)) < density
    matrix = (random.standard_normal(kept.shape) * kept).astype(np.float32)
    x, left = (aligned(n * WIDTH).reshape(n, WIDTH) for n in (COLUMNS, ROWS))
    for array in (x, left):
        array[:] = random.standard_normal(array.shape)
    pattern = SparsityPattern.of(kept)
    values = matrix.reshape(-1)[pattern.order]
    row, column = np.nonzero(kept)
    bounds = np.searchsorted(row, np.arange(ROWS + 1)).astype(np.int32)
    by_row, column32 = matrix[kept], column.astype(np.int32)
    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
    csr = torch.sparse_csr_tensor(
        torch.from_numpy(bounds),
        torch.from_numpy(column32),
        torch.from_numpy(by_row),
        kept.shape,
        check_invariants=False,
    )
    dense, x_, left_ = torch.from_numpy(matrix), torch.from_numpy(x), torch.from_numpy(left)
    out, gradient = aligned(ROWS * WIDTH).reshape(ROWS, WIDTH), np.zeros(values.size, np.float32)
    outputs, gradients = torch.empty(ROWS, WIDTH), torch.empty(ROWS, COLUMNS)
    nothing, numbers, flat = np.empty(0, np.float32), np.arange(COLUMNS, dtype=np.int32), matrix.reshape(-1)
    plain = nothing, np.float32(-np.inf)
    stream = x.reshape(-1), 0, WIDTH, 16, WIDTH // 16
    streams = *stream, out.reshape(-1), 0, WIDTH, 16, nothing, 0, -1, nothing, -1, 0, 0
    pair = left.reshape(-1), 0, WIDTH, 16, *stream
    where = pattern.columns, pattern.bounds, ROWS
    all_gradients = np.zeros(ROWS * COLUMNS, np.float32)
    sides: dict[str, Callable[[], object]] = {
        "tombola": lambda: sparse_product(values, *where, *plain, *streams),
        "tombola, dense": lambda: dense_product(flat, 0, COLUMNS, numbers, numbers, ROWS, *plain, *streams),
        "numba": lambda: plain_product(by_row, column32, bounds, x, out),
        "torch.sparse": lambda: csr @ x_,
        "dense": lambda: torch.mm(dense, x_, out=outputs),
        "tombola, gradient": lambda: sampled_product(*where, *pair, gradient),
        "tombola, dense gradient": lambda: dense_gradient(numbers, numbers, ROWS, 0, COLUMNS, *pair, all_gradients),
        "numba, gradient": lambda: plain_sampled(column32, bounds, left, x, gradient),
        "torch.sparse, gradient": lambda: torch.sparse.sampled_addmm(csr, left_, x_.T, beta=0.0),
        "dense, gradient": lambda: torch.mm(left_, x_.T, out=gradients),
    }
    repeated = {name: (lambda call=call: [call() for _ in range(calls)]) for name, call in sides.items()}
    seconds = take_turns(repeated, turns)
    return {name: 2.0 * WIDTH * values.size * calls / median(times) / 1e9 for name, times in seconds.items()}


def main(
    calls: Annotated[int, typer.Option(help="Products of a turn.")] = 100,
    turns: Annotated[int, typer.Option(help="Turns of each side.")] = 7,
    save: Annotated[bool, typer.Option(help="Write results/kernels.json.")] = True,
) -> None:
    """Measure, print a table, write results/kernels.json."""
    torch.set_num_threads(1)
    with threadpool_limits(1, user_api="blas"):
        rates = {density: measure(density, calls, turns) for density in (1.0, 0.5, 0.26, 0.1, 0.036, 0.01)}
    table = Table("GFLOP/s", *(f"{density:g}" for density in rates), box=None)
    for name in next(iter(rates.values())):
        table.add_row(name, *(f"{of[name]:.1f}" for of in rates.values()))
    console.print(table)
    console.print(machine())
    if save:
        console.print(f"Written to {write('kernels', {'gflops': {str(d): of for d, of in rates.items()}})}.")


if __name__ == "__main__":
    typer.run(main)
