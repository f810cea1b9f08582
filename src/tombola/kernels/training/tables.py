"""The arrays that the training kernels work on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tombola.kernels.products import Floats, Indices

Doubles = npt.NDArray[np.float64]
Records = npt.NDArray[np.void]

PRODUCT, NORM, COPY, MAX_POOL, AVERAGE_POOL, DROPOUT, INPUT = range(7)
"""Kinds of steps."""

STEP = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("kind", "whole"),
            *("x", "x_plane", "x_line", "y", "y_plane", "y_line", "a", "a_plane", "a_line"),
            *("dx", "dx_plane", "dx_line", "dy", "dy_plane", "dy_line", "da", "da_plane", "da_line"),
            *("dx_top", "dx_left", "dx_bottom", "dx_right", "da_top", "da_left", "da_bottom", "da_right"),
            *("dx_first", "da_first", "x_relu", "a_relu", "relu"),
            *("channels", "in_height", "in_width", "rows", "height", "width"),
            *("kernel_h", "kernel_w", "stride_h", "stride_w", "dilation_h", "dilation_w", "top", "left", "tiles"),
            *("weights", "weights_end", "bias", "scale", "sparse", "masked", "linear", "by_rows"),
            *("entry", "entries", "bound", "bounds", "back", "backs", "phase", "phases"),
            *("statistics", "sums", "unit"),
        )
    ]
    + [(name, np.float64) for name in ("eps", "momentum", "probability")]
)
"""A step of the table: an operation of a training plan. All offsets and distances are in pixels.

- `x`, `y`, `a`: where the first pixel of its source, output and addend is, for a convolution the first that its first
  kernel reads; `..._plane`, `..._line`: the distances of channels and lines. `dx`, `dy`, `da`: the same in the array
  of gradients. -1: there is none.
- `dx_top`, ...: lines and columns of zeros around the gradient of the source. `dx_first`: whether this step is the
  first to write it in a backward pass; later ones add to it. `x_relu`: whether the source ends with a ReLU.
- `channels`, `in_height`, `in_width`: the size of the source. `rows`, `height`, `width`: that of the output.
- `weights`, `weights_end`, `bias`, `scale`: where its parameters are; -1: there are none.
- `entry`, `entries`, `bound`, `bounds`: where its columns begin, how many there are, and where its bounds begin and
  end. `back`, `backs`, `phase`, `phases`: where its entries for the gradient of the inputs begin and end, and its
  phases.
- `by_rows`: the weights are updated with `dense_update`, not after the backward pass.
- `whole`: it is computed for all groups at once. `sums`: the statistics of the batch norm that reads its output, or
  -1; `statistics`: those of a batch norm itself. `unit`: how many units of dropout come before its own.
"""

PHASE = np.dtype([(name, np.int64) for name in ("bound", "bounds", "entry", "entries", "y", "x", "height", "width")])
"""The pixels (y + i · stride, x + j · stride) of a convolution's source, `height` · `width` of them, whose gradients
are the same product of the output's gradient."""


class TrainingTables(NamedTuple):
    """What does not change during a training."""

    steps: Records
    phases: Records
    segments: npt.NDArray[np.int64]
    """Begin and end of runs of steps that are computed one group after another; a batch norm begins one."""
    columns: Indices
    places: Indices
    """Of dense products: the weight of each column of a row."""
    bounds: Indices
    back_columns: Indices
    back_bounds: Indices
    back_places: Indices
    """Of sparse products: the index of each entry of the transpose. Of dense ones: as in `places`."""
    kept: npt.NDArray[np.uint8]
    """0 for each pruned weight of the layers that are trained dense, 1 for all other parameters."""
    runs: npt.NDArray[np.int64]
    """Where the pixels of an example are; see `tombola.kernels.images`. Those that nothing reads may be missing."""
    undecayed: int
    """The first of the parameters to which weight decay does not apply; they are the last."""


class TrainingWeights(NamedTuple):
    """Parameters, optimizer state and running statistics: float32, concatenated; each parameter padded to whole
    vectors."""

    parameters: Floats
    gradients: Floats
    """Zero between iterations: `update` clears them."""
    first: Floats
    """Adam's first moment, or SGD's momentum; empty for SGD without momentum."""
    second: Floats
    """Adam's second moment; empty for SGD."""
    means: Floats
    variances: Floats


class Workspace(NamedTuple):
    """Arrays for a number of groups of `n` examples."""

    n: int
    groups: int
    group_size: int
    """Floats of a group in `activations`."""
    back_group_size: int
    """Floats of a group in `deltas`."""
    hop: int
    """The distance of vectors of a whole batch in `activations`."""
    back_hop: int
    vectors: int
    """How many there are."""
    activations: Floats
    deltas: Floats
    """Gradients with respect to the activations; empty in evaluations."""
    transposed: Floats
    """A layer's values in the order of its transpose."""
    valid: Floats
    """1 for each example, 0 for those that fill up the last group."""
    sums: Doubles
    """Of batch norms: two sums for each channel."""
    mean: Doubles
    deviation: Doubles
    """The reciprocal of the standard deviation."""
    logits: Floats
    """The gradient of a group's logits."""
    scratch: Floats
    """For `dense_update`; empty in evaluations."""


class Options(NamedTuple):
    """Options of the optimizer and of dropout."""

    adam: bool
    momentum: float
    nesterov: bool
    weight_decay: float
    decoupled: bool
    """Whether weight decay is that of AdamW."""
    noise: int
    """Seed of dropout."""
    begin: int
    """The iteration at which the optimizer began, from which Adam counts its steps; earlier than the first iteration
    where the optimizer continues from another run."""


Step = Any
"""A record of `STEP`."""
