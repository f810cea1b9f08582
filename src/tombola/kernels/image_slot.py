"""Where images lie in a workspace."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tombola.kernels.images import Table
from tombola.kernels.plans.plan import Image


@dataclass(frozen=True)
class ImageSlot:
    """Where an image lies in the workspace, its padding included."""

    image: Image
    begin: int

    @property
    def line(self) -> int:
        """The distance of lines, in pixels."""
        _, _, left, right = self.image.padding
        return left + self.image.width + right

    @property
    def plane(self) -> int:
        """The distance of channels."""
        top, bottom, _, _ = self.image.padding
        return (top + self.image.height + bottom) * self.line

    @property
    def end(self) -> int:
        """The first offset behind the image."""
        return self.begin + self.image.channels * self.plane

    def at(self, channel: Any = 0, y: Any = 0, x: Any = 0) -> Any:
        """The offset of a pixel, or of many (integers or arrays); negative `y` and `x` are in the padding."""
        top, _, left, _ = self.image.padding
        return self.begin + channel * self.plane + (top + y) * self.line + left + x

    @property
    def pixels(self) -> Table:
        """The offset of each pixel, in the order of a contiguous tensor."""
        sizes = (self.image.channels, self.image.height, self.image.width)
        return np.asarray(self.at(*np.indices(sizes).reshape(3, -1)), np.int64)


class Lifetime(NamedTuple):
    """When an image is needed, from the time it is written to the last time it is read."""

    image: Image
    written: int
    read: int


def allocate(lifetimes: Sequence[Lifetime]) -> dict[Image, ImageSlot]:
    """A slot for each image; images that are not needed at the same time may share memory."""
    slots: dict[Image, ImageSlot] = {}
    until = {lifetime.image: lifetime.read for lifetime in lifetimes}
    for lifetime in sorted(lifetimes, key=lambda lifetime: lifetime.written):
        # What is read at the time at which this image is written is still needed then.
        busy = sorted((slot.begin, slot.end) for other, slot in slots.items() if until[other] >= lifetime.written)
        begin, size = 0, ImageSlot(lifetime.image, 0).end
        for taken, free in busy:
            if begin + size <= taken:
                break
            begin = max(begin, free)
        slots[lifetime.image] = ImageSlot(lifetime.image, begin)
    return slots


def runs_of(pixels: Table) -> Table:
    """The runs of pixels, given by their offsets in the workspace, that are contiguous there and in an example; see
    `tombola.kernels.images`."""
    cuts = [0, *(np.flatnonzero(np.diff(pixels) != 1) + 1), len(pixels)]
    return np.array([[a, pixels[a], b - a] for a, b in itertools.pairwise(cuts)], np.int64)
