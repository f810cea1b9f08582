"""The gradient of a linear layer's weights and biases, the optimizer's step and the mask, in one kernel."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from tombola.engines.stacked.optimizer_rule import Rule, UpdatedParameter
from tombola.engines.stacked.triton_kernels.launch_options import FUSED_ADDITIONS, block_size
from tombola.engines.stacked.triton_kernels.update_rule import update

BLOCK_B = {"tf32": 64, "ieee": 16}
"""Examples summed at once, by precision: a batch of 60 in one product of the matrix units; without them the operands
are in registers."""
NUMBERS_A_THREAD = 16
"""Of a tile: 64 × 64 weights have 256 threads. With gradient, weight, two moments and addresses they take 128
registers (as compiled for compute capability 9.0): two programs share a multiprocessor, one loads, one computes."""


def weight_update(
    x: Tensor,
    rows: Tensor | None,
    dy: Tensor,
    weight: UpdatedParameter,
    bias: UpdatedParameter | None,
    rule: Rule,
    precision: str,
) -> None:
    """Update weights (runs, outputs, inputs), transposed or not, biases (runs, outputs), and their state, in place.
    `x`: the layer's inputs as in `product.outputs`; `dy`: the gradient of its outputs, (runs, batch, outputs)."""
    runs, batch, outputs = dy.shape
    inputs = weight.tensor.shape[2]
    block_o, block_i = block_size(outputs), block_size(inputs)
    tiles = triton.cdiv(outputs, block_o) * triton.cdiv(inputs, block_i)
    _weight_update[(runs * tiles,)](
        x,
        rows,
        dy,
        *weight.pointers(),
        *(bias.pointers()[:-1] if bias else [None] * 4),
        rule.lr,
        BATCH=batch,
        OUTPUTS=outputs,
        INPUTS=inputs,
        STRIDE_O=weight.tensor.stride(1),
        STRIDE_I=weight.tensor.stride(2),
        **rule.constants(),
        PRECISION=precision,
        BLOCK_O=block_o,
        BLOCK_I=block_i,
        BLOCK_B=BLOCK_B[precision],
        num_warps=max(1, block_o * block_i // (32 * NUMBERS_A_THREAD)),
        num_stages=2,
        **FUSED_ADDITIONS,
    )


@triton.jit
def _weight_update(
    x,
    rows,
    dy,
    weight,
    first,
    second,
    step,
    pruned,
    bias,
    bias_first,
    bias_second,
    bias_step,
    lr,
    BATCH: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    STRIDE_O: tl.constexpr,
    STRIDE_I: tl.constexpr,
    ADAM: tl.constexpr,
    MOMENTUM: tl.constexpr,
    BETA2: tl.constexpr,
    LOG_MOMENTUM: tl.constexpr,
    LOG_BETA2: tl.constexpr,
    EPS: tl.constexpr,
    WEIGHT_DECAY: tl.constexpr,
    NESTEROV: tl.constexpr,
    LR_ON_DEVICE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """The gradient is dW[r, o, i] = Σ_b dy[r, b, o]·x[r, b, i], and for the bias Σ_b dy[r, b, o].

    A program has BLOCK_O × BLOCK_I weights of a run, whose gradient stays in registers; those of the first inputs
    have the biases as well. Moves, a run: what `update` does for each weight and bias, and x and dy once, 4 bytes a
    number; reads for further tiles come from the L2 cache, as a run's programs follow one another.
    """
    TILES_I: tl.constexpr = (INPUTS + BLOCK_I - 1) // BLOCK_I
    TILES: tl.constexpr = TILES_I * ((OUTPUTS + BLOCK_O - 1) // BLOCK_O)
    run = (tl.program_id(0) // TILES).to(tl.int64)
    tile = tl.program_id(0) % TILES
    o = tile // TILES_I * BLOCK_O + tl.arange(0, BLOCK_O)
    i = tile % TILES_I * BLOCK_I + tl.arange(0, BLOCK_I)
    in_outputs, in_inputs = o < OUTPUTS, i < INPUTS
    gradient = tl.zeros((BLOCK_O, BLOCK_I), tl.float32)
    for start in range(0, BATCH, BLOCK_B):
        b = start + tl.arange(0, BLOCK_B)
        in_batch = b < BATCH
        row = run * BATCH + b
        source = row if rows is None else tl.load(rows + row, mask=in_batch, other=0)
        left = tl.load(
            dy + row[None, :] * OUTPUTS + o[:, None], mask=in_batch[None, :] & in_outputs[:, None], other=0.0
        )
        right = tl.load(
            x + source[:, None] * INPUTS + i[None, :], mask=in_batch[:, None] & in_inputs[None, :], other=0.0
        )
        gradient = tl.dot(left, right, gradient, input_precision=PRECISION)
    update(
        weight,
        first,
        second,
        step,
        pruned,
        lr,
        run * (OUTPUTS * INPUTS) + o[:, None] * STRIDE_O + i[None, :] * STRIDE_I,
        in_outputs[:, None] & in_inputs[None, :],
        gradient,
        ADAM,
        MOMENTUM,
        BETA2,
        LOG_MOMENTUM,
        LOG_BETA2,
        EPS,
        WEIGHT_DECAY,
        NESTEROV,
        LR_ON_DEVICE,
    )
    if bias is not None:
        if tile % TILES_I == 0:
            total = tl.zeros((BLOCK_O,), tl.float32)
            for start in range(0, BATCH, BLOCK_B):
                b = start + tl.arange(0, BLOCK_B)
                place = (run * BATCH + b)[None, :] * OUTPUTS + o[:, None]
                total += tl.sum(tl.load(dy + place, mask=(b < BATCH)[None, :] & in_outputs[:, None], other=0.0), 1)
            update(
                bias,
                bias_first,
                bias_second,
                bias_step,
                None,
                lr,
                run * OUTPUTS + o,
                in_outputs,
                total,
                ADAM,
                MOMENTUM,
                BETA2,
                LOG_MOMENTUM,
                LOG_BETA2,
                EPS,
                WEIGHT_DECAY,
                NESTEROV,
                LR_ON_DEVICE,
            )
