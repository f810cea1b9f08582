"""What a network for images knows of its inputs."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from tombola.utils.errors import InputError


@dataclass(frozen=True)
class Images:
    """The shape of an example, read as an image."""

    channels: int
    height: int
    width: int
    flat: bool
    """Whether examples come as (height, width), without an axis for the one channel."""

    @classmethod
    def of(cls, inputs: tuple[int, ...], name: str, least: int = 1) -> Images:
        """Read `inputs`, (height, width) or (channels, height, width), for the network called `name`.

        Raises `InputError` for any other number of dimensions, and for images of fewer than `least` pixels a side.
        """
        if len(inputs) not in (2, 3):
            raise InputError(
                f'model.name: "{name}" takes images, (height, width) or (channels, height, width), '
                f"not examples of shape {inputs}"
            )
        height, width = inputs[-2:]
        if min(height, width) < least:
            raise InputError(
                f'model.name: "{name}" takes images of at least {least}×{least} pixels, not {height}×{width}'
            )
        return cls(1 if len(inputs) == 2 else inputs[0], height, width, len(inputs) == 2)

    def layers(self) -> OrderedDict[str, nn.Module]:
        """The layers that come before all others: none, or `channel`, which gives flat images their channel."""
        return OrderedDict(channel=nn.Unflatten(1, (1, self.height))) if self.flat else OrderedDict()


def scaled(number: int, factor: float) -> int:
    """That many channels or units in a network `factor` times as wide: rounded, at least 1."""
    return max(1, round(number * factor))
