"""How fast a training step could be on one thread: its useful arithmetic, and the least memory that it moves.

Useful are the multiply-adds of kept weights with inputs other than padding: in the forward pass, for the gradients
of the weights and, except in the first layer, for those of the inputs. They are timed at the rate of the fastest of a
few dense matrix products. The least memory traffic reads and writes each kept weight and its state in the optimizer
once; activations, and indices of kept weights, are taken to cost nothing. Neither can be avoided, and both may happen
at the same time, so the limit is the larger one. Only dense convolutions could be faster, by an algorithm with fewer
multiplications (Winograd's).
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tombola.engines.sparse.candidates import record_input_shapes
from tombola.pruning.mask import Mask
from tombola.runs.initial_state import masked_network
from tombola.runs.run import Run, Training

SIZES = (256, 512, 1024)
"""Rows and columns of the matrices whose products are timed."""


@torch.no_grad()
def useful_multiply_adds(network: nn.Module, mask: Mask, inputs: Tensor) -> int:
    """Of one training step on the batch `inputs`. Each layer with its mask as its weight, and ones as its inputs,
    sums to its multiply-adds."""
    counts = []
    for name, (_, *shape) in record_input_shapes(network, lambda: network(inputs[:1])).items():
        layer = copy.deepcopy(network.get_submodule(name)).double()
        kept = mask.get(f"{name}.weight")
        layer.weight.copy_(torch.ones(()) if kept is None else kept)  # type: ignore[operator]
        if layer.bias is not None:
            layer.bias.zero_()  # type: ignore[operator]
        counts.append(round(layer(torch.ones(1, *shape, dtype=torch.float64)).sum().item()))
    return len(inputs) * (3 * sum(counts) - counts[0])


def least_bytes(network: nn.Module, mask: Mask, training: Training) -> int:
    """Of the kept weights, all other parameters, and the optimizer's state of both."""
    kept = sum(parameter.numel() for parameter in network.parameters()) - mask.size + mask.count
    copies = 3 if training.optimizer == "adam" else 1 + bool(training.momentum)
    return 4 * kept * copies


@dataclass(frozen=True)
class Limit:
    """What is timed, in turns with the sides, to know the limit of a step."""

    multiply_adds: int
    traffic: int
    """Bytes that are read once and written once."""

    @classmethod
    def of(cls, run: Run, inputs: Tensor) -> Limit:
        network = masked_network(run)
        return cls(useful_multiply_adds(network, run.mask, inputs), least_bytes(network, run.mask, run.training))

    @property
    def passes(self) -> int:
        """How often one call moves the bytes: very few would be too short to time."""
        return max(1, 2**24 // self.traffic)

    def calls(self) -> dict[str, Callable[[], None]]:
        """What to time, by name."""
        moved = torch.ones(self.traffic // 4)

        def move() -> None:
            for _ in range(self.passes):
                moved.mul_(1.0)

        factors = {size: torch.rand(size, size) for size in SIZES}

        def product(size: int) -> None:
            for _ in range((SIZES[-1] // size) ** 2):
                torch.mm(factors[size], factors[size])

        products = {f"product of {size}": functools.partial(product, size) for size in SIZES}
        return {"traffic": move, **products}

    def measured(self, seconds: dict[str, float]) -> dict[str, float]:
        """GFLOP of useful arithmetic; the rate of the fastest product in GFLOP/s; traffic in MB and milliseconds."""
        rates = [2e-9 * size**3 * (SIZES[-1] // size) ** 2 / seconds[f"product of {size}"] for size in SIZES]
        return {
            "gflop": 2e-9 * self.multiply_adds,
            "gflops": max(rates),
            "megabytes": self.traffic / 1e6,
            "traffic": seconds["traffic"] / self.passes * 1e3,
        }
