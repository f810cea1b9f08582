"""Training plan: a network as operations whose forward and backward passes the kernels compute."""

from __future__ import annotations

from dataclasses import dataclass, field

from tombola.kernels.plans.plan import Image

Pair = tuple[int, int]


@dataclass(eq=False)
class Activation:
    """The output of an operation, and its gradient; each is an image with the padding that its readers need."""

    values: Image
    gradients: Image
    relu: bool = False
    """Whether the operation ends with a ReLU: where the values are not positive, the gradient is zero."""
    trained: bool = True
    """Whether parameters come before it, so that its gradient is needed."""

    @classmethod
    def of(cls, shape: tuple[int, ...], trained: bool = True) -> Activation:
        """Of shape (channels,) or (channels, height, width)."""
        sizes = (*shape, 1, 1)[:3]
        return cls(Image.of(sizes), Image.of(sizes), trained=trained)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.values.shape


@dataclass(eq=False)
class TrainingOperation:
    """An operation with one source, and perhaps an `addend` that is added before the ReLU."""

    source: Activation
    out: Activation
    addend: Activation | None = field(default=None, kw_only=True)
    name: str = field(default="", kw_only=True)
    """The path of its module, as in `named_modules`."""


@dataclass(eq=False)
class LayerProduct(TrainingOperation):
    """A convolution, or a linear layer: a convolution with a kernel as large as its input."""

    kernel: Pair
    bias: bool
    stride: Pair = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Top, bottom, left and right."""
    dilation: Pair = (1, 1)
    groups: int = 1
    linear: bool = False

    @property
    def matrix_shape(self) -> Pair:
        """Of its weight: outputs, and inputs of a group times the size of the kernel."""
        height, width = self.kernel
        return self.out.values.channels, self.source.values.channels // self.groups * height * width

    def require_padding(self) -> None:
        """Add the zeros that it reads around its source, and around the gradient of its output: the gradient of the
        source is a product too, whose kernel may reach beyond that."""
        self.source.values.require_padding(*self.padding)
        if self.linear or not self.source.trained:
            return
        margins = []
        for axis in range(2):
            before, after = self.padding[2 * axis], self.source.shape[1 + axis] - 1 + self.padding[2 * axis]
            reach = (self.kernel[axis] - 1) * self.dilation[axis]
            first, last = (before - reach) // self.stride[axis], after // self.stride[axis]
            margins += [max(0, -first), max(0, last - (self.out.shape[1 + axis] - 1))]
        self.out.gradients.require_padding(*margins)


@dataclass(eq=False)
class BatchNorm(TrainingOperation):
    """Batch norm, with the statistics of the batch in training and running ones in evaluation."""

    eps: float
    momentum: float


@dataclass(eq=False)
class Copy(TrainingOperation):
    """Every `stride`-th pixel; further channels of the output are zero."""

    stride: Pair = (1, 1)


@dataclass(eq=False)
class Pool(TrainingOperation):
    """Max or average pooling."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    average: bool

    @property
    def tiles(self) -> bool:
        """Whether each pixel of the source is in exactly one window."""
        _, height, width = self.source.shape
        _, rows, columns = self.out.shape
        covered = (rows * self.stride[0], columns * self.stride[1]) == (height, width)
        return covered and self.kernel == self.stride and self.padding == (0, 0) and self.dilation == (1, 1)


@dataclass(eq=False)
class Dropout(TrainingOperation):
    """Dropout of single values."""

    probability: float


@dataclass(frozen=True)
class TrainingPlan:
    """Operations in the order of their execution. The last one's output has the logits."""

    inputs: Activation
    operations: tuple[TrainingOperation, ...]
    example: tuple[int, int, int]
    """Channels, height and width of an example, of which `inputs` may make features."""

    @property
    def logits(self) -> Activation:
        """One pixel for each class."""
        return self.operations[-1].out

    @property
    def of_features(self) -> bool:
        """Whether there are no images of more than one pixel."""
        return all(op.source.shape[1:] == op.out.shape[1:] == (1, 1) for op in self.operations)
