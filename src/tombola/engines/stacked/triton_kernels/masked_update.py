"""An optimizer's step for one parameter, and its mask, in one kernel."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from tombola.engines.stacked.optimizer_rule import Rule, UpdatedParameter
from tombola.engines.stacked.triton_kernels.launch_options import FUSED_ADDITIONS
from tombola.engines.stacked.triton_kernels.update_rule import update

BLOCK = 1024
"""Weights a program: eight a thread, two 16-byte accesses for each of four tensors, all of them independent."""


def masked_update(updated: UpdatedParameter, gradient: Tensor, rule: Rule) -> None:
    """Update the parameter, its state in place. `gradient` is laid out like the parameter."""
    count = gradient.numel()
    _masked_update[(triton.cdiv(count, BLOCK),)](
        gradient, *updated.pointers(), rule.lr, count, **rule.constants(), BLOCK=BLOCK, num_warps=4, **FUSED_ADDITIONS
    )


@triton.jit
def _masked_update(
    gradient,
    parameter,
    first,
    second,
    step,
    pruned,
    lr,
    count,
    ADAM: tl.constexpr,
    MOMENTUM: tl.constexpr,
    BETA2: tl.constexpr,
    LOG_MOMENTUM: tl.constexpr,
    LOG_BETA2: tl.constexpr,
    EPS: tl.constexpr,
    WEIGHT_DECAY: tl.constexpr,
    NESTEROV: tl.constexpr,
    LR_ON_DEVICE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """All tensors have `count` elements, in the same order of storage, which is the order of the programs.

    Moves, a weight: its gradient in 4 bytes, and what `update` does; 29 for Adam with a mask.
    """
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < count
    update(
        parameter,
        first,
        second,
        step,
        pruned,
        lr,
        offsets,
        inside,
        tl.load(gradient + offsets, mask=inside, other=0.0),
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
