"""The loss of every run, and the gradient of its logits, in one kernel."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from tombola.engines.stacked.triton_kernels.launch_options import FUSED_ADDITIONS

NUMBERS = 4096
"""Logits that a program holds at once: 32 for each of 128 threads."""


def cross_entropy(logits: Tensor, labels: Tensor, loss_sums: Tensor) -> None:
    """Add the mean cross-entropy of each run to `loss_sums`, (runs,), and replace `logits`, (runs, batch, classes),
    by its gradient. `labels`: int64, (runs, batch)."""
    runs, batch, classes = logits.shape
    block_c = triton.next_power_of_2(classes)
    block_b = min(triton.next_power_of_2(batch), max(1, NUMBERS // block_c))
    _cross_entropy[(runs,)](
        logits,
        labels,
        loss_sums,
        BATCH=batch,
        CLASSES=classes,
        BLOCK_B=block_b,
        BLOCK_C=block_c,
        num_warps=4,
        **FUSED_ADDITIONS,
    )


@triton.jit
def _cross_entropy(
    logits,
    labels,
    loss_sums,
    BATCH: tl.constexpr,
    CLASSES: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """loss = mean over b of log Σ exp z[b] - z[b, label[b]]; z becomes (softmax(z) - onehot(label)) / BATCH.

    A program has all logits of a run, which it reads and writes once: 8 bytes a logit, and 8 a label.
    """
    run = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK_C)[None, :]
    total = tl.zeros((BLOCK_B,), tl.float32)
    for start in range(0, BATCH, BLOCK_B):
        b = start + tl.arange(0, BLOCK_B)
        in_batch = b < BATCH
        row = run * BATCH + b
        place = row[:, None] * CLASSES + c
        inside = in_batch[:, None] & (c < CLASSES)
        z = tl.load(logits + place, mask=inside, other=0.0)
        largest = tl.max(tl.where(c < CLASSES, z, float("-inf")), 1)
        powers = tl.where(c < CLASSES, tl.exp(z - largest[:, None]), 0.0)
        power_sum = tl.sum(powers, 1)
        chosen = c == tl.load(labels + row, mask=in_batch, other=0)[:, None]
        loss = largest + tl.log(power_sum) - tl.sum(tl.where(chosen, z, 0.0), 1)
        total += tl.where(in_batch, loss, 0.0)
        gradient = (powers / power_sum[:, None] - tl.where(chosen, 1.0, 0.0)) / BATCH
        tl.store(logits + place, gradient, mask=inside)
    tl.store(loss_sums + run, tl.load(loss_sums + run) + tl.sum(total, 0) / BATCH)
