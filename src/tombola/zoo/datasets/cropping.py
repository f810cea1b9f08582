"""The centre of images, which is evaluated where training crops them at random."""

from __future__ import annotations

from torch import Tensor


def crop_centre(x: Tensor, side: int | None) -> Tensor:
    """The central square of images (..., height, width), of `side` pixels; all of them if it is None."""
    if side is None:
        return x
    top, left = (round((length - side) / 2) for length in x.shape[-2:])
    return x[..., top : top + side, left : left + side]
