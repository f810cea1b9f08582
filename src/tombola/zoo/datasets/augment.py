"""Augmentation: other views of the training images, drawn anew for every batch."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from tombola.utils.seeds import Purpose, sequence

BLOCK = 100
"""Iterations that are drawn at a time."""


def draws(seed: int, batch_size: int, first: int, count: int, flip: bool, crop: int) -> Tensor:
    """What happens to each image of the batches of iterations `first` to `first + count - 1`.

    int64 of shape (count, batch_size, 3): whether it is turned left to right, 0 or 1, and where the image that is
    cut out of the padded one begins, rows and columns from the top left, each from 0 to 2 x crop. Any stretch can be
    asked for by itself, and the images are turned alike whatever `crop` is.
    """
    if count == 0:
        return torch.zeros(0, batch_size, 3, dtype=torch.int64)
    blocks = range(first // BLOCK, -(-(first + count) // BLOCK))
    drawn = np.concatenate([_block(seed, batch_size, block, flip, crop) for block in blocks])
    offset = blocks.start * BLOCK
    return torch.from_numpy(drawn[first - offset : first + count - offset].astype(np.int64))


@functools.lru_cache(maxsize=256)  # runs that are trained as one take turns
def _block(
    seed: int, batch_size: int, block: int, flip: bool, crop: int
) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    generator = np.random.default_rng(sequence(seed, Purpose.AUGMENT, block))
    turned = generator.integers(0, 2, (BLOCK, batch_size, 1), dtype=np.int32)
    begins = generator.integers(0, 2 * crop + 1, (BLOCK, batch_size, 2), dtype=np.int32)
    return np.concatenate([turned * np.int32(flip), begins], axis=2)


def augment(x: Tensor, choices: Tensor, black: Tensor, crop: int) -> Tensor:
    """The images padded with black by `crop` pixels on each side, cut to their former size, and some turned.

    `x`: (images, channels, height, width) or (images, height, width); `choices`: (images, 3), of `draws`. `black`
    is what a black pixel is after scaling: (channels,), or (images, channels) where images differ in it; of images
    without channels one number, or (images,). All on one device, which is never waited for.
    """
    height, width = x.shape[-2:]
    turned, top, left = choices[:, 0, None], choices[:, 1, None], choices[:, 2, None]
    across = torch.arange(width, device=x.device)
    rows = torch.arange(height, device=x.device) + top - crop  # (images, height): where each row comes from
    columns = torch.where(turned.bool(), width - 1 - across, across) + left - crop  # (images, width)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    places = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    if x.ndim == 4:
        inside, places = inside[:, None], places[:, None]
    pixels = x.flatten(-2).gather(-1, places.flatten(-2).expand(*x.shape[:-2], -1)).view_as(x)
    return torch.where(inside, pixels, black[..., None, None].to(x.dtype))
