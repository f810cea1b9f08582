"""Tuning: which layers are multiplied sparse and which dense, decided by timing both on this machine."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable

import numpy as np

from tombola.exports.runtime.memory_layout import dense_products, program_of
from tombola.exports.runtime.program import Program
from tombola.kernels import inference as k
from tombola.kernels.plans.plan import Plan, Product
from tombola.kernels.products import Floats

ROUNDS = 5
"""How often each function is timed, alternately, after a warm-up call; the medians are compared."""
MIN_DENSE_DENSITY = 0.05
"""Layers of a lower density are not tried dense: no machine multiplies dense matrices twenty times as fast."""


def tuned(plan: Plan) -> Program:
    """The program of `plan` in which each layer is sparse or dense, whichever is faster in large batches."""
    candidates = {n for n, product in dense_products(plan).items() if _density(product) >= MIN_DENSE_DENSITY}
    sparse = program_of(plan)
    if not candidates:
        return sparse
    dense = program_of(plan, candidates)
    workspace = np.full(sparse.workspace * sparse.block_size, 0.01, np.float32)
    return program_of(plan, {n for n in candidates if _dense_is_faster(sparse, dense, n, workspace)})


def _density(product: Product) -> float:
    kernel = product.weights.kernel
    assert kernel is not None
    size = len(product.bias) * product.source.channels * kernel.height * kernel.width
    return len(product.weights.value) / size


def _dense_is_faster(sparse: Program, dense: Program, number: int, workspace: Floats) -> bool:
    row = number + 1  # the first is that of the inputs

    def step(program: Program) -> None:
        arrays = program.values, program.columns, program.bounds, program.biases
        k.product_step(program.table[row], *arrays, workspace, sparse.block_size)

    return is_faster(functools.partial(step, dense), functools.partial(step, sparse))


def is_faster(one: Callable[[], object], other: Callable[[], object]) -> bool:
    """Whether `one` takes less time than `other`: both are called alternately, and medians are compared."""
    times: dict[Callable[[], object], list[float]] = {one: [], other: []}
    for number in range(ROUNDS + 1):
        for function, seconds in times.items():
            began = time.perf_counter()
            function()
            if number:
                seconds.append(time.perf_counter() - began)
    return statistics.median(times[one]) < statistics.median(times[other])
