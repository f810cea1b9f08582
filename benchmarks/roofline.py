"""Bytes and FLOP of a training step of one network of a stack of LeNet-300-100, by arithmetic.

    python -m benchmarks.roofline

Weights and activations are float32. Each design is what a step moves through the device's memory if every operation
reads its inputs from there and writes its outputs there once:

- `least`: weights and optimizer state read and written once, a batch of inputs read; everything else stays in caches.
- `plain`: products by cuBLAS, a kernel for each other operation, the fused optimizer of torch, then the mask.
- `masking`: the optimizer's kernel also sets the pruned weights to zero; of the mask it reads one byte a weight.
- `fused`: one kernel computes the gradient of a layer's weights and uses it at once, without writing it; biases and
  ReLU are computed within the products, which gather the inputs themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple, get_args

import typer
from rich.table import Table

from benchmarks.common import console

Design = Literal["least", "plain", "masking", "fused"]
DESIGNS: tuple[Design, ...] = get_args(Design)
LENET = (784, 300, 100, 10)
"""Units of each layer, inputs first."""
FLOAT = 4
STATES = {"adam": 2, "sgd": 0}
"""Numbers of optimizer state for each parameter; SGD without momentum."""


class Work(NamedTuple):
    """Of one step of one network of a stack."""

    bytes: dict[str, int]
    """By part of the step."""
    flop: int
    """Of the matrix products, in float32 or any other precision."""

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(self.bytes.values())


def stacked_step(
    optimizer: Literal["adam", "sgd"], batch: int, design: Design, widths: Sequence[int] = LENET
) -> Work:
    """The work of a step with `batch` examples of a network with these `widths`; see the module for the designs."""
    layers = list(pairwise(widths))
    weights = sum(a * b for a, b in layers)
    parameters = weights + sum(widths[1:])
    updated = 2 * (1 + STATES[optimizer]) * parameters  # weights and states, read and written
    flop = 2 * batch * (2 * weights + sum(a * b for a, b in layers[1:]))
    if design == "least":
        return Work({"inputs": FLOAT * batch * widths[0], "optimizer": FLOAT * updated}, flop)
    forward = _products(layers, batch)
    numbers = {
        "inputs": 0 if design == "fused" else 2 * batch * widths[0],  # gathered before the first product, or in it
        "forward products": forward,
        "weight gradients": forward - weights if design == "fused" else forward,
        "input gradients": _products(layers[1:], batch),
        "activations": _activations(widths, batch, fused=design == "fused"),
        "optimizer": updated if design == "fused" else updated + parameters,  # with the gradient
    }
    work = {name: FLOAT * count for name, count in numbers.items()}
    # Of its own weights are read and written, and a mask of their width is read; else one byte each.
    work["mask"] = 3 * FLOAT * weights if design == "plain" else weights
    return Work(work, flop)


def _products(layers: Sequence[tuple[int, int]], batch: int) -> int:
    """The numbers that one matrix product for each layer reads and writes."""
    return sum(a * b + batch * (a + b) for a, b in layers)


def _activations(widths: Sequence[int], batch: int, fused: bool) -> int:
    """The numbers read and written between the products. Of a hidden unit: its bias added (2), ReLU (2), and ReLU's
    gradient (3); of a logit: its bias added (2), the log-softmax (2), the gradients of loss and log-softmax (4); and
    the sums of gradients that are those of the biases. Fused: ReLU's gradient reads whether a unit is on (1)."""
    hidden, classes = sum(widths[1:-1]), widths[-1]
    if fused:
        return batch * (hidden + 6 * classes)
    biases = hidden + classes
    return batch * (7 * hidden + 8 * classes + biases) + biases


def main(
    bandwidth: Annotated[float, typer.Option(help="Of the device's memory, in TB/s; `benchmarks.gpu` measures it.")],
) -> None:
    """Print the bytes of each part, and the steps per second that they allow."""
    for optimizer, batch in (("adam", 60), ("sgd", 64)):
        works = {design: stacked_step(optimizer, batch, design) for design in DESIGNS}  # type: ignore[arg-type]
        table = Table("KB", *DESIGNS)
        for part in works["plain"].bytes:
            table.add_row(part, *(f"{work.bytes.get(part, 0) / 1e3:,.0f}" for work in works.values()))
        table.add_section()
        table.add_row("all", *(f"{work.total / 1e3:,.0f}" for work in works.values()))
        steps = [bandwidth * 1e12 / work.total for work in works.values()]
        table.add_row("thousand steps per second, at most", *(f"{rate / 1e3:,.0f}" for rate in steps))
        console.print(f"{optimizer}, batches of {batch}: {works['least'].flop / 1e6:.1f} MFLOP a step")
        console.print(table)


if __name__ == "__main__":
    typer.run(main)
