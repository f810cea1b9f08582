"""Agreement: whether two networks compute the same, up to rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

TOLERANCE = 1e-4
"""How far outputs may be apart, relative to the largest of them; half precision, whose rounding is coarser, more."""


@torch.no_grad()
def disagreement(network: Callable[[Tensor], Any], other: Callable[[Tensor], Any], example: Tensor) -> str | None:
    """How the outputs of `other` differ from the network's, for the example, for random batches of its size, and of
    two and one; None where they do not, but for rounding.

    What is infinite, or no number, has to be so in both. Raises whatever the networks raise.
    """
    shape = example.shape[1:]
    batches = [example] if len(example) else []
    if example.is_floating_point():
        for size in {len(example), 2, 1} - {0}:
            batches.append(torch.randn((size, *shape), dtype=example.dtype, device=example.device))
    for batch in batches:
        pairs = zip(tensors(network(batch.clone())), tensors(other(batch.clone())), strict=True)
        for before, after in pairs:
            if before.shape != after.shape:
                return f"its outputs are {tuple(after.shape)}, and should be {tuple(before.shape)}"
            finite = before[before.isfinite()].abs()
            scale = float(finite.max()) if finite.numel() else 0.0
            coarse = 8 * torch.finfo(before.dtype).eps if before.is_floating_point() else 0.0
            if not torch.allclose(after, before, rtol=0, atol=max(TOLERANCE, coarse) * scale, equal_nan=True):
                far = float((after - before).abs().max())
                return f"its outputs differ by up to {far:.2g}; the largest is {scale:.2g}"
    return None


def tensors(output: Any) -> Iterator[Tensor]:
    """The tensors in what a network returned."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict | list | tuple):
        for one in output.values() if isinstance(output, dict) else output:
            yield from tensors(one)
