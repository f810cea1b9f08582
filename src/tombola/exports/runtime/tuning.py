"""Tuning: which layers are multiplied sparse and which dense, found out by measuring both on this machine."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable

import numpy as np

from tombola.engines.sparse.products import Floats
from tombola.exports.runtime import kernels as k
from tombola.exports.runtime.layout import dense_products, program_of
from tombola.exports.runtime.plan import Plan, Product
from tombola.exports.runtime.program import Program

TURNS = 5
"""How often each way is timed, in turns, after one that does not count; the medians are compared."""

SPARSE_BELOW = 0.05
"""Layers of which less than this is left are not tried dense: no machine multiplies twenty times as fast so."""


def tuned(plan: Plan) -> Program:
    """The program of `plan`, each layer as it is faster in large batches."""
    candidates = {n for n, product in dense_products(plan).items() if _density(product) >= SPARSE_BELOW}
    sparse = program_of(plan)
    together = sparse.together
    if not candidates:
        return sparse
    dense = program_of(plan, candidates)
    room = np.full(sparse.room * together, 0.01, np.float32)
    return program_of(plan, {n for n in candidates if _dense_is_faster(sparse, dense, n, room, together)})


def _density(product: Product) -> float:
    kernel = product.weights.kernel
    assert kernel is not None
    size = len(product.bias) * product.source.channels * kernel.height * kernel.width
    return len(product.weights.value) / size


def _dense_is_faster(sparse: Program, dense: Program, number: int, room: Floats, together: int) -> bool:
    row = number + 1  # the first is that of the inputs

    def way(program: Program) -> None:
        arrays = program.values, program.columns, program.bounds, program.biases
        k.product_step(program.table[row], *arrays, room, together)

    return faster(functools.partial(way, dense), functools.partial(way, sparse))


def faster(one: Callable[[], object], other: Callable[[], object]) -> bool:
    """Whether one way takes less time than the other; they take turns, and medians are compared."""
    times: dict[Callable[[], object], list[float]] = {one: [], other: []}
    for turn in range(TURNS + 1):
        for way, seconds in times.items():
            began = time.perf_counter()
            way()
            if turn:
                seconds.append(time.perf_counter() - began)
    return statistics.median(times[one]) < statistics.median(times[other])
