"""What a device reaches: bytes copied and products of matrices computed per second, measured."""

from __future__ import annotations

import functools
from typing import Any, get_args

import torch
from torch import Tensor

from benchmarks.common import seconds_per_call
from tombola.engines.precision import matmul_precision
from tombola.runs.run import Precision

COPIED = 2**30
"""Bytes: many times the caches of any GPU."""


def copy_bandwidth(device: torch.device, size: int = COPIED) -> float:
    """Bytes read and written per second by a copy of `size` bytes within the device's memory."""
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds_per_call(lambda: target.copy_(source), device)


def product_rates(precision: Precision, runs: int, batch: int, device: torch.device) -> dict[str, float]:
    """FLOP per second of the products of LeNet-300-100's first layer, for `runs` networks at once: forward, x W', and
    the gradient of the weights, d' x."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    x, w, d = (
        torch.randn(runs, *shape, device=device).to(dtype) for shape in ((batch, 784), (300, 784), (batch, 300))
    )
    products: dict[str, tuple[Tensor, Tensor]] = {"x W'": (x, w.mT), "d' x": (d.mT, x)}
    flop = 2 * runs * batch * 784 * 300
    with matmul_precision(precision, device):
        return {
            name: flop / seconds_per_call(functools.partial(torch.bmm, *factors), device)
            for name, factors in products.items()
        }


def ceilings(runs: int, device: torch.device, copied: int = COPIED) -> list[dict[str, Any]]:
    """All of them, as rows of a table."""
    rows = [{"what": "copy", "rate": copy_bandwidth(device, copied) / 1e12, "unit": "TB/s"}]
    for precision in get_args(Precision):
        for name, rate in product_rates(precision, runs, 60, device).items():
            rows.append({"what": f"{name}, {precision}", "rate": rate / 1e12, "unit": "TFLOP/s"})
    return rows
