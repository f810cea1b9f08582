"""Whether kernels written in Triton can be used. It is optional: PyTorch's CUDA builds bring it, others do not."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os

import torch
from torch import Tensor, nn, optim

from tombola.engines.stacked.masked_optimizer import MaskedOptimizer
from tombola.utils.text import first_line

log = logging.getLogger(__name__)

CAPABILITY = (8, 0)
"""The compute capability that the blocks of the kernels are made for, at least: Ampere's."""


@functools.cache
def triton_usable(device: torch.device) -> bool:
    """Whether Triton's kernels run on `device` and are right. If not on a CUDA device, the reason is logged, once."""
    if device.type != "cuda":
        return False
    if reason := _why_not_available():
        log.info("Triton's kernels are not used: %s", reason)
    elif reason := _why_not_usable(device):
        log.warning("training on %s is slower than it could be, without Triton's kernels: %s", device, reason)
    return not reason


def triton_version(device: torch.device) -> str | None:
    """The version of Triton, on which the last bits of results depend; None if its kernels are not used."""
    if not triton_usable(device):
        return None
    import triton

    return str(triton.__version__)


def _why_not_available() -> str | None:
    if os.environ.get("TRITON_INTERPRET", "0") != "0":
        return "TRITON_INTERPRET is set"
    if importlib.util.find_spec("triton") is None:
        return 'it is not installed: pip install "tombola[triton]"'
    return None


def _why_not_usable(device: torch.device) -> str | None:
    try:
        if torch.cuda.get_device_capability(device) < CAPABILITY:
            return "the GPU is older than they support"
        return None if _updates_alike(device) else "a trial of one gave wrong numbers"
    except torch.cuda.OutOfMemoryError:
        raise  # it is no property of the kernels
    except Exception as error:  # noqa: BLE001 - compilers, drivers and linkers fail in many ways
        return first_line(error)


def _updates_alike(device: torch.device) -> bool:
    """Whether a step of Adam is the same with a kernel and without."""
    pruned = torch.arange(15, device=device).view(3, 5) % 3 > 0
    results: list[Tensor] = []
    for kernels in (False, True):
        weight = nn.Parameter(torch.linspace(-1, 1, 15, device=device).view(3, 5))
        weight.grad = torch.linspace(1, 2, 15, device=device).view(3, 5)
        optimizer = optim.Adam([weight], fused=True, capturable=True)
        MaskedOptimizer(optimizer, {"weight": weight}, {"weight": pruned}, kernels).step()
        results.append(weight.detach())
    plain, fused = results
    return torch.allclose(fused, plain, rtol=1e-4, atol=1e-6)
