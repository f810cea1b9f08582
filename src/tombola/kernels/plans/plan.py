"""Plan: a network as products and max poolings, which is all that the kernels compute."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tombola.graph.constants import FloatArray
from tombola.graph.ties import IntArray


class UnsupportedNetwork(Exception):
    """The network has an operation that the kernels cannot compute. The message says which."""


@dataclass(eq=False)
class Image:
    """A value: `channels` images of `height` × `width`; features are images of one pixel."""

    channels: int
    height: int = 1
    width: int = 1
    padding: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    """How many lines and columns of zeros its readers need: top, bottom, left, right."""

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Image:
        """An image of shape (channels, height, width) without padding."""
        channels, height, width = shape
        return cls(channels, height, width)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width, without padding."""
        return self.channels, self.height, self.width

    def require_padding(self, top: int, bottom: int, left: int, right: int) -> None:
        """Add zeros until there are at least so many."""
        self.padding = [max(pair) for pair in zip(self.padding, (top, bottom, left, right), strict=True)]


@dataclass(eq=False)
class Product:
    """out[row] = Σ weight · source[channel, moved by (down, across)] + bias (+ addend), at least 0 with `relu`."""

    source: Image
    out: Image
    weights: SparseWeights
    bias: FloatArray
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    """At the top and on the left: where the first kernel begins."""
    first: int = 0
    """The channel of `out` that the first row gives."""
    addend: Image | None = None
    relu: bool = False


@dataclass(frozen=True)
class SparseWeights:
    """The nonzero weights of a product, row by row."""

    row: IntArray
    channel: IntArray
    down: IntArray
    across: IntArray
    value: FloatArray
    kernel: ConvGeometry | None = None
    """Set if all weights together are a matrix, which could be multiplied dense."""

    def scaled(self, scale: FloatArray) -> SparseWeights:
        """Each row multiplied by its own number."""
        return replace(self, value=self.value * scale[self.row])


@dataclass(frozen=True)
class ConvGeometry:
    """The sizes of a kernel; its matrix has (channels · height · width) columns."""

    height: int
    width: int
    dilation: tuple[int, int] = (1, 1)


@dataclass(eq=False)
class MaxPool:
    """Max pooling; (height, width) each."""

    source: Image
    out: Image
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


@dataclass
class Plan:
    """Products and poolings in the order of their execution, from `inputs` to `outputs`."""

    inputs: Image
    outputs: Image
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    work: list[Product | MaxPool]
