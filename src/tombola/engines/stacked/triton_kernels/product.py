"""The batched products of a linear layer with what follows them: its outputs, and the gradient of its inputs."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from tombola.engines.stacked.triton_kernels.launch_options import FUSED_ADDITIONS, block_size

BLOCK_K = {"tf32": 32, "ieee": 16}
"""Of the sum. With three stages in shared memory, 64 × 64 tiles need 48 KB (tf32), so four programs share a
multiprocessor of 227 KB; in float32 operands are held in registers, which is why blocks are smaller."""


def outputs(
    x: Tensor, rows: Tensor | None, weight: Tensor, bias: Tensor | None, y: Tensor, relu: bool, precision: str
) -> None:
    """Write y = x Wᵀ + b, or its ReLU. `x`: (any, inputs), its `rows` given as (runs, batch), or without them
    (runs, batch, inputs); `weight`: (runs, outputs, inputs), transposed or not; `y`: (runs, batch, outputs)."""
    _launch(x, rows, weight.transpose(1, 2), bias, None, y, relu, precision)


def input_gradient(dy: Tensor, weight: Tensor, gate: Tensor | None, dx: Tensor, precision: str) -> None:
    """Write dx = dy W, times (gate > 0) for inputs `gate` that ReLU returned. `dy`: (runs, batch, outputs); `weight`:
    (runs, outputs, inputs), transposed or not; `gate` and `dx`: (runs, batch, inputs)."""
    _launch(dy, None, weight, None, gate, dx, False, precision)


def _launch(
    a: Tensor,
    rows: Tensor | None,
    w: Tensor,
    bias: Tensor | None,
    gate: Tensor | None,
    result: Tensor,
    relu: bool,
    precision: str,
) -> None:
    runs, batch, columns = result.shape
    block_b, block_n = block_size(batch), block_size(columns)
    tiles = triton.cdiv(batch, block_b) * triton.cdiv(columns, block_n)
    _product[(runs * tiles,)](
        a,
        rows,
        w,
        bias,
        gate,
        result,
        BATCH=batch,
        SUMMED=w.shape[1],
        COLUMNS=columns,
        STRIDE_K=w.stride(1),
        STRIDE_N=w.stride(2),
        RELU=relu,
        PRECISION=precision,
        BLOCK_B=block_b,
        BLOCK_N=block_n,
        BLOCK_K=BLOCK_K[precision],
        num_warps=4,
        **FUSED_ADDITIONS,
        num_stages=3,
    )


@triton.jit
def _product(
    a,
    rows,
    w,
    bias,
    gate,
    result,
    BATCH: tl.constexpr,
    SUMMED: tl.constexpr,
    COLUMNS: tl.constexpr,
    STRIDE_K: tl.constexpr,
    STRIDE_N: tl.constexpr,
    RELU: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """result[r, b, n] = Σₖ a[r, b, k]·w[r, k, n], plus bias[r, n], then ReLU; or 0 where gate[r, b, n] <= 0.

    `a`: (runs, BATCH, SUMMED), or with `rows` (runs, BATCH) the rows of (any, SUMMED). `w`: (runs, SUMMED, COLUMNS),
    the run's weights dense. A program has BLOCK_B × BLOCK_N numbers of a run's result. Moves, a run: w once for each
    BLOCK_B examples, `a`, the gate and the result once, 4 bytes a number; reads of `a` for further columns come from
    the L2 cache, as a run's programs follow one another.
    """
    TILES_N: tl.constexpr = (COLUMNS + BLOCK_N - 1) // BLOCK_N
    TILES: tl.constexpr = TILES_N * ((BATCH + BLOCK_B - 1) // BLOCK_B)
    run = (tl.program_id(0) // TILES).to(tl.int64)
    tile = tl.program_id(0) % TILES
    b = tile // TILES_N * BLOCK_B + tl.arange(0, BLOCK_B)
    n = tile % TILES_N * BLOCK_N + tl.arange(0, BLOCK_N)
    in_batch, in_columns = b < BATCH, n < COLUMNS
    row = run * BATCH + b
    source = row if rows is None else tl.load(rows + row, mask=in_batch, other=0)
    w += run * (SUMMED * COLUMNS)
    total = tl.zeros((BLOCK_B, BLOCK_N), tl.float32)
    for start in range(0, SUMMED, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        left = tl.load(
            a + source[:, None] * SUMMED + k[None, :], mask=in_batch[:, None] & (k[None, :] < SUMMED), other=0.0
        )
        right = tl.load(
            w + k[:, None] * STRIDE_K + n[None, :] * STRIDE_N,
            mask=(k[:, None] < SUMMED) & in_columns[None, :],
            other=0.0,
        )
        total = tl.dot(left, right, total, input_precision=PRECISION)
    place = row[:, None] * COLUMNS + n[None, :]
    inside = in_batch[:, None] & in_columns[None, :]
    if bias is not None:
        total += tl.load(bias + run * COLUMNS + n, mask=in_columns, other=0.0)[None, :]
    if RELU:
        total = tl.where(total < 0.0, 0.0, total)  # unlike a maximum, it keeps NaN, as torch does
    if gate is not None:
        total = tl.where(tl.load(gate + place, mask=inside, other=0.0) <= 0.0, 0.0, total)
    tl.store(result + place, total, mask=inside)
