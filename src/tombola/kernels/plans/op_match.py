"""What a call in a network's graph was recognised as, and its arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Pair = tuple[int, int]


@dataclass(frozen=True)
class Pooling:
    """The options of a pooling; (height, width) each.

    Adaptive pooling to a size that divides the image's, and the mean over all pixels, have a kernel as large as their
    stride.
    """

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False
    count_include_pad: bool = True
    """Of averages: whether padding counts as pixels."""


@dataclass(frozen=True)
class TensorRef:
    """Stands for a tensor among the arguments of a call."""

    index: int
    """The index of the step whose output it is."""
    shape: tuple[int, ...]
    dtype: torch.dtype


class DynamicInt(int):
    """A number among the arguments that the network computes, from a shape for example."""


@dataclass(frozen=True)
class OpMatch:
    """What a call computes, as the fields of a step."""

    kind: str
    inputs: tuple[TensorRef, ...]
    function: Callable[[Tensor], Tensor] | None = None
    options: Pooling | None = None
    fixed: bool = False


@dataclass(frozen=True)
class BoundFunction:
    """A function with all its arguments but one tensor, which is never changed in place."""

    function: Callable[..., Tensor]
    before: tuple[Any, ...] = ()
    after: tuple[Any, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(*self.before, x.clone(), *self.after, **dict(self.options))


def is_images(x: Any) -> bool:
    """Whether a value is a batch of images."""
    return isinstance(x, TensorRef) and len(x.shape) == 4  # torch takes a tensor of three axes for a single image
