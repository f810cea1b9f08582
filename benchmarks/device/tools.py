"""`hold` and 2:4 layers on a device."""

from __future__ import annotations

import functools

import torch
from torch import nn

from benchmarks import hold
from benchmarks.common import seconds_per_call
from benchmarks.device.parts import Findings, Place, Row
from tombola.exports.two_four import semi_structured
from tombola.pruning.prune_model import prune


def holding(place: Place) -> Findings:
    """The table of `benchmarks.hold`, eager and compiled."""
    if place.rehearsal:
        return Findings([hold_row(place, batch=4, width=8, steps=1, turns=1)])
    rows = [
        hold_row(place, precision=precision, compiled=compiled, steps=50, turns=7)
        for precision, compiled in (("fp32", False), ("bf16", False), ("bf16", True))
    ]
    return Findings(rows)


def hold_row(place: Place, **settings: object) -> Row:
    """One measurement as a row."""
    result = hold.measure(place.device, **settings)  # type: ignore[arg-type]
    times = {f"{side}, ms": each for side, each in result["ms"].items()}
    return {name: result[name] for name in ("precision", "compiled")} | times | {"ratio": result["ratio"]}


def two_four(place: Place) -> Findings:
    """Two linear layers, by size, batch and type."""
    if not place.is_cuda:
        return Findings([{"2:4": "the kernels need a GPU"}])
    found = Findings([])
    for dtype in (torch.float16, torch.bfloat16):
        for width, batch in ((1024, 64), (4096, 4096)):
            found.rows.append(row := two_four_row(width, batch, dtype, place.device))
            if not row["error"] <= 0.02:
                found.wrong.append(f"{row['type']}, {width} units: the outputs differ by {row['error']:.1%}")
    return found


@torch.no_grad()
def two_four_row(width: int, batch: int, dtype: torch.dtype, device: torch.device) -> Row:
    """The relative difference of the outputs, and microseconds of both."""
    network = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
    prune(network, structure="2:4")
    sparse, dense = semi_structured(network, dtype), network.to(device, dtype)
    x = torch.randn(batch, width, device=device, dtype=dtype)
    expected, found = dense(x).float(), sparse(x).float()
    us = [1e6 * seconds_per_call(functools.partial(side, x), device, calls=20) for side in (dense, sparse)]
    error = float((found - expected).norm() / expected.norm())
    kind = str(dtype).removeprefix("torch.")
    return {"type": kind, "units": width, "batch": batch, "error": error, "dense, us": us[0], "2:4, us": us[1]}
