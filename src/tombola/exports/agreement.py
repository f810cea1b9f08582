"""Agreement: whether two networks compute the same, up to rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tombola.utils.model_inputs import Inputs, batch_size, batches_like, call, clone, tensors
from tombola.utils.random_state import seeded

TOLERANCE = 1e-4
"""The largest allowed difference of outputs, relative to the largest of them; half precision is allowed more."""


@torch.no_grad()
def output_mismatch(network: Callable[..., Any], other: Callable[..., Any], example: Inputs) -> str | None:
    """How the outputs of `other` differ from those of `network`; None if they agree up to rounding.

    Both are called with the example, and with batches of its size, of two and of one (see `batches_like`), except
    those that `network` does not take; before each call, random states are set alike. Infinite and NaN outputs have
    to be the same in both. Raises what `network` raises for the example, and what `other` raises.
    """
    compared = 0
    for number, batch in enumerate([*[example] * (batch_size(example) > 0), *batches_like(example)]):
        try:
            before = _outputs(network, batch)
        except Exception:  # a user's module may raise anything, such as for numbers that it takes for indices
            if number == 0:
                raise
            continue
        after = _outputs(other, batch)
        if len(after) != len(before):
            return f"it returns {len(after)} tensors instead of {len(before)}"
        reason = next(filter(None, map(_difference, before, after)), None)
        if reason is not None:
            return reason
        compared += len(before)
    return None if compared else "it returns no tensors that could be compared"


def _outputs(network: Callable[..., Any], batch: Inputs) -> list[Tensor]:
    with seeded(0):
        return [*tensors(call(network, clone(batch)))]


def _difference(before: Tensor, after: Tensor) -> str | None:
    if before.shape != after.shape or before.dtype != after.dtype:
        return f"its outputs have shape {tuple(after.shape)} instead of {tuple(before.shape)}"
    wide = torch.complex128 if before.is_complex() else torch.float64
    coarse = 8 * torch.finfo(before.dtype).eps if before.is_floating_point() else 0.0
    before, after = before.to(wide), after.to(wide)
    finite = before[before.isfinite()].abs()
    scale = float(finite.max()) if finite.numel() else 0.0
    if not torch.allclose(after, before, rtol=0, atol=max(TOLERANCE, coarse) * scale, equal_nan=True):
        far = float((after - before).abs().max())
        return f"its outputs differ by up to {far:.2g}; the largest output is {scale:.2g}"
    return None
