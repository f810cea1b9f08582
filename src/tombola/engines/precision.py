"""The precision of a network's arithmetic. Weights, gradients and optimizers are always float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from tombola.runs.run import Precision


@contextlib.contextmanager
def matmul_precision(precision: Precision, device: torch.device) -> Iterator[None]:
    """Within it, float32 matrix multiplications and convolutions on CUDA have the given precision.

    They are computed in float32, or for `tf32` with inputs rounded to 10 mantissa bits; torch's previous settings are
    restored at the end. On a CPU `tf32` equals `fp32`, and nothing is set.
    """
    if device.type != "cuda":
        yield
        return
    tf32 = precision == "tf32"
    matmul, convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32  # torch allows it by default
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolution


def at_least_float32(logits: Tensor) -> Tensor:
    """Half precision converted to float32, for the loss; float32 and float64 unchanged."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """For a forward pass: with `bf16`, torch's autocast to bfloat16."""
    if precision != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
