"""Random resized crops: a random part of every training image, resized to one size."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tombola.utils.random_stream import Array, RandomStream
from tombola.utils.seeds import Purpose, sequence

BLOCK = 20
"""Iterations drawn at a time."""

AREA = 0.08, 1.0
RATIO = 3 / 4, 4 / 3
"""Width divided by height."""
TRIES = 10
"""Parts are drawn until one fits into the image, so many times at most; as in torchvision's RandomResizedCrop."""


class ResizedCropDraws:
    """The random choices of the run with this seed, for each image in its batches. The last block that was drawn is
    kept."""

    def __init__(self, seed: int, batch_size: int, flip: bool, image: tuple[int, int]) -> None:
        """`image`: height and width of all images."""
        self.seed = seed
        self.batch_size = batch_size
        self.flip = flip
        self.image = image
        self._stream = RandomStream(self._block, BLOCK)

    def choices(self, first: int, count: int) -> Tensor:
        """Of iterations `first` to `first + count - 1`: float32 of shape (count, batch_size, 5).

        Whether the image is flipped left to right, 0 or 1; then the first row and column of its part, and the part's
        height and width, in pixels. Any range of iterations gives the same choices.
        """
        return torch.from_numpy(self._stream.read(first, first + count))

    def _block(self, block: int) -> Array:
        generator = np.random.default_rng(sequence(self.seed, Purpose.AUGMENT, block))
        images = BLOCK, self.batch_size
        flipped = generator.integers(0, 2, images) * self.flip
        area = self.image[0] * self.image[1] * generator.uniform(*AREA, (TRIES, *images))
        ratio = np.exp(generator.uniform(np.log(RATIO[0]), np.log(RATIO[1]), (TRIES, *images)))
        height, width = _first_that_fits(np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio)), self.image)
        top, left = (
            np.floor(generator.random(images) * (side - part + 1))
            for side, part in zip(self.image, (height, width), strict=True)
        )
        return np.stack([flipped, top, left, height, width], axis=2).astype(np.float32)


def _first_that_fits(heights: Array, widths: Array, image: tuple[int, int]) -> tuple[Array, Array]:
    """For each image the first try that is not empty and fits; else the largest part with a valid ratio."""
    fits = (heights >= 1) & (heights <= image[0]) & (widths >= 1) & (widths <= image[1])
    first = fits.argmax(axis=0)[None]
    ratio = min(max(image[1] / image[0], RATIO[0]), RATIO[1])
    largest = round(min(image[0], image[1] / ratio)), round(min(image[1], image[0] * ratio))
    found = (np.take_along_axis(tries, first, axis=0)[0] for tries in (heights, widths))
    height, width = (np.where(fits.any(axis=0), each, one) for each, one in zip(found, largest, strict=True))
    return height, width


def resized_crop(x: Tensor, choices: Tensor, side: int) -> Tensor:
    """The chosen part of each image, resized bilinearly to `side` x `side` pixels, and some flipped.

    `x`: (images, channels, height, width) or (images, height, width); `choices`: (images, 5), of `ResizedCropDraws`.
    Both are on one device, with which the CPU never synchronises.
    """
    images = x if x.ndim == 4 else x[:, None]
    height, width = x.shape[-2:]
    flipped, top, left, rows, columns = choices.unbind(1)
    zero = torch.zeros_like(rows)
    # From coordinates in the result to those in the image, both from -1 to 1.
    across = torch.stack([(1 - 2 * flipped) * columns / width, zero, (2 * left + columns) / width - 1], 1)
    down = torch.stack([zero, rows / height, (2 * top + rows) / height - 1], 1)
    grid = functional.affine_grid(torch.stack([across, down], 1), [len(images), 1, side, side], align_corners=False)
    cropped = functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return cropped if x.ndim == 4 else cropped[:, 0]
