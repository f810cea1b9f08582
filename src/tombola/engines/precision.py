"""Precision: what a network's arithmetic is done in. Weights, gradients and optimizers are float32 always."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from tombola.runs.training import Precision


@contextlib.contextmanager
def matmul_precision(precision: Precision, device: torch.device) -> Iterator[None]:
    """Within it, matrix multiplications and convolutions of float32 are what `precision` says, for a whole training.

    On CUDA they are of float32 throughout, or for `tf32` round their inputs to 10 bits after the point; whatever
    torch was set to before is put back at the end. On a CPU `tf32` is `fp32`, and nothing is set.
    """
    if device.type != "cuda":
        yield
        return
    tf32 = precision == "tf32"
    matmul, convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32  # torch itself would allow it
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolution


def at_least_single(logits: Tensor) -> Tensor:
    """Of half precision made single, for the loss; others as they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """For a forward pass: with `bf16`, torch does in bfloat16 what stands it, matrix multiplications above all."""
    if precision != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
