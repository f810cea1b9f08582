"""Augmentation of the training images of runs: random flips and crops; resized crops are in `resized_crop`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tombola.engines.resized_crop import ResizedCropDraws, resized_crop
from tombola.runs.run import Run
from tombola.utils.random_stream import Array, RandomStream
from tombola.utils.seeds import Purpose, sequence
from tombola.utils.transfers import to_device
from tombola.zoo.datasets.split import Split

BLOCK = 100
"""Iterations drawn at a time."""


@dataclass(frozen=True)
class Augmentation:
    """Augments the batches, concatenated, of runs of one shape."""

    runs: Sequence[Run]
    black: Tensor
    """The value of a black pixel for each image of all batches: (images, channels)."""
    device: torch.device
    draws: Mapping[int, AugmentationDraws | ResizedCropDraws]
    """By the seeds of the runs."""

    @classmethod
    def of(cls, runs: Sequence[Run], splits: Sequence[Split], device: torch.device) -> Augmentation | None:
        """None where images are not augmented."""
        if not runs[0].data.augmented:
            return None
        data, batch = runs[0].data, runs[0].training.batch_size
        black = torch.stack([split.black for split in splits]).repeat_interleave(batch, 0)
        height, width = splits[0].train.shape[-2:]

        def draw(seed: int) -> AugmentationDraws | ResizedCropDraws:
            if data.resized_crop is None:
                return AugmentationDraws(seed, batch, data.flip, data.crop)
            return ResizedCropDraws(seed, batch, data.flip, (height, width))

        return cls(runs, black.to(device), device, {seed: draw(seed) for seed in {run.seed for run in runs}})

    def choices(self, first: int, count: int) -> Tensor:
        """The random draws for each image in `count` iterations from `first`, of shape (count, images, draws)."""
        drawn = {seed: draws.choices(first, count) for seed, draws in self.draws.items()}
        return to_device(torch.cat([drawn[run.seed] for run in self.runs], 1), self.device)

    def __call__(self, x: Tensor, choices: Tensor) -> Tensor:
        """The augmented images of `x`, of shape (images, channels, height, width) or (images, height, width)."""
        data = self.runs[0].data
        if data.resized_crop is None:
            return augment(x, choices, self.black, data.crop)
        return resized_crop(x, choices, data.resized_crop)


class AugmentationDraws:
    """The random choices of the run with this seed, for each image in its batches. The last block that was drawn is
    kept."""

    def __init__(self, seed: int, batch_size: int, flip: bool, crop: int) -> None:
        self.seed = seed
        self.batch_size = batch_size
        self.flip = flip
        self.crop = crop
        self._stream = RandomStream(self._block, BLOCK)

    def choices(self, first: int, count: int) -> Tensor:
        """Of iterations `first` to `first + count - 1`: int64 of shape (count, batch_size, 3).

        Whether the image is flipped left to right, 0 or 1, and the first row and column of the crop in the padded
        image, each from 0 to 2 x crop. Any range of iterations gives the same choices, and flips do not depend on
        `crop`.
        """
        return torch.from_numpy(self._stream.read(first, first + count).astype(np.int64))

    def _block(self, block: int) -> Array:
        generator = np.random.default_rng(sequence(self.seed, Purpose.AUGMENT, block))
        flipped = generator.integers(0, 2, (BLOCK, self.batch_size, 1), dtype=np.int32)
        corners = generator.integers(0, 2 * self.crop + 1, (BLOCK, self.batch_size, 2), dtype=np.int32)
        choices = np.concatenate([flipped * np.int32(self.flip), corners], axis=2)
        return choices.astype(np.min_scalar_type(max(1, 2 * self.crop)))


def augment(x: Tensor, choices: Tensor, black: Tensor, crop: int) -> Tensor:
    """The images, padded with `crop` black pixels on each side, cropped to their former size, and some flipped.

    `x`: (images, channels, height, width) or (images, height, width); `choices`: (images, 3), of `AugmentationDraws`.
    `black`: the value of a black pixel after scaling, (channels,) or (images, channels); for images without channels,
    () or (images,). All tensors are on one device, with which the CPU never synchronises.
    """
    height, width = x.shape[-2:]
    flipped, top, left = choices[:, 0, None], choices[:, 1, None], choices[:, 2, None]
    across = torch.arange(width, device=x.device)
    rows = torch.arange(height, device=x.device) + top - crop  # (images, height): where each row comes from
    columns = torch.where(flipped.bool(), width - 1 - across, across) + left - crop  # (images, width)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    pixel_indices = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    if x.ndim == 4:
        inside, pixel_indices = inside[:, None], pixel_indices[:, None]
    pixels = x.flatten(-2).gather(-1, pixel_indices.flatten(-2).expand(*x.shape[:-2], -1)).view_as(x)
    return torch.where(inside, pixels, black[..., None, None].to(x.dtype))
