"""The precision of a network's arithmetic. Weights, gradients and optimizers are always float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tombola.runs.run import Precision

_BY_OPERATION = hasattr(torch.backends, "fp32_precision")
"""Whether this torch (2.9 or later) has a setting for each kind of operation; where one was made, the older ones may
raise."""


@contextlib.contextmanager
def matmul_precision(precision: Precision, device: torch.device) -> Iterator[None]:
    """Within it, float32 matrix multiplications and convolutions on CUDA have the given precision.

    They are computed in float32, or for `tf32` with inputs rounded to 10 mantissa bits. Afterwards torch's settings,
    with whichever of its functions they were made, are as before. On a CPU `tf32` equals `fp32`, and nothing is set.
    """
    if device.type != "cuda":
        yield
        return
    tf32 = precision == "tf32"
    with _fp32_precision("tf32" if tf32 else "ieee") if _BY_OPERATION else _allow_tf32(tf32):
        yield


@contextlib.contextmanager
def _fp32_precision(precision: str) -> Iterator[None]:
    """Set `fp32_precision` of all operations on CUDA.

    An operation without a value of its own takes that of CUDA, and CUDA that of torch (`torch.backends`). Whether it
    has one cannot be read, and the default of convolutions cannot be set again. So the value of CUDA is set, and of
    the operations only those which that does not change: their own values can be read and restored.
    """
    cuda: Any = torch.backends.cudnn  # its settings are also those above `torch.backends.cuda.matmul`
    with contextlib.ExitStack() as restored:
        restored.callback(setattr, cuda, "fp32_precision", _own_precision(cuda))
        cuda.fp32_precision = precision
        operations: list[Any] = [torch.backends.cuda.matmul, cuda.conv, cuda.rnn]
        for operation in operations:
            if (own := operation.fp32_precision) != precision:
                restored.callback(setattr, operation, "fp32_precision", own)
                operation.fp32_precision = precision
        yield


def _own_precision(cuda: Any) -> str:
    """The value that was set for CUDA: `none` if what is read is that of torch, and so changes with it."""
    everything: Any = torch.backends
    default, value = everything.fp32_precision, cuda.fp32_precision
    if value != default:
        return str(value)
    everything.fp32_precision = "tf32" if value == "ieee" else "ieee"
    inherited = cuda.fp32_precision != value
    everything.fp32_precision = default
    return "none" if inherited else str(value)


@contextlib.contextmanager
def _allow_tf32(allowed: bool) -> Iterator[None]:
    """The settings before torch 2.9."""
    matmul, convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed  # torch allows it by default
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
