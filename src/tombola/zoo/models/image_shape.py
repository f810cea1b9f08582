"""The shape of the images that a network takes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from tombola.utils.errors import InputError


@dataclass(frozen=True)
class ImageShape:
    """The shape of one image."""

    channels: int
    height: int
    width: int
    flat: bool
    """Whether an example is (height, width), without an axis for its one channel."""

    @classmethod
    def of(cls, inputs: tuple[int, ...], network: str, min_side: int = 1) -> ImageShape:
        """From `inputs`, (height, width) or (channels, height, width); `network` is named in messages. Raises
        `InputError` for any other number of dimensions, and for fewer than `min_side` pixels a side."""
        if len(inputs) not in (2, 3):
            raise InputError(
                f'model.name: "{network}" takes images, (height, width) or (channels, height, width), '
                f"not examples of shape {inputs}"
            )
        height, width = inputs[-2:]
        if min(height, width) < min_side:
            raise InputError(
                f'model.name: "{network}" takes images of at least {min_side}×{min_side} pixels, not {height}×{width}'
            )
        return cls(1 if len(inputs) == 2 else inputs[0], height, width, len(inputs) == 2)

    def first_layers(self) -> OrderedDict[str, nn.Module]:
        """The layers before all others: `channel`, which adds the channel axis to flat images, or none."""
        return OrderedDict(channel=nn.Unflatten(1, (1, self.height))) if self.flat else OrderedDict()


def scale_width(number: int, factor: float) -> int:
    """The number of channels or units in a network `factor` times as wide: rounded, at least 1."""
    return max(1, round(number * factor))
