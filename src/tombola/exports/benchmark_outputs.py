"""The outputs of an artefact for all examples: how accurate, how different and how finite they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tombola.utils.model_inputs import Inputs, batch_size, call, is_batched, rows, scores_index, tensors

EVALUATION_BATCH = 256
"""The batch size for accuracy and differences."""


@dataclass(frozen=True)
class Outputs:
    """The tensors that an artefact returned, batch by batch."""

    sizes: list[int]
    """The number of examples of each batch."""
    batches: list[list[Tensor]]
    scores: int | None
    """Which tensor of a batch has the class scores (see `scores_index`)."""

    @classmethod
    def of(cls, predict: Callable[..., Any], x: Inputs) -> Outputs:
        """For all examples."""
        sizes, batches, scores = [], [], None
        for begin in range(0, batch_size(x), EVALUATION_BATCH):
            part = rows(x, slice(begin, begin + EVALUATION_BATCH))
            outputs = call(predict, part)
            sizes.append(batch_size(part))
            batches.append([*tensors(outputs)])
            scores = scores_index(outputs, sizes[0]) if begin == 0 else scores
        return cls(sizes, batches, scores)

    def accuracy(self, labels: Tensor, scores: int | None) -> float | None:
        """The share of correct predictions by the tensor `scores`; None if it is not (N, classes). NaN is never
        correct."""
        found = None if scores is None else torch.cat([batch[scores] for batch in self.batches])
        if found is None or found.dim() != 2 or int(labels.max()) >= found.shape[1]:
            return None
        correct = (found.argmax(1) == labels) & ~found.isnan().any(1)
        return correct.double().mean().item()

    def difference(self, reference: Outputs) -> float | None:
        """The largest difference of a number from that of `reference`, which has the same shapes; None if only one
        of the two is finite. Infinities of the same sign, and two NaN, are equal."""
        pairs = [
            pair
            for ours, theirs in zip(self.batches, reference.batches, strict=True)
            for pair in zip(ours, theirs, strict=True)
        ]
        largest = max(_difference(*pair) for pair in pairs)
        return largest if math.isfinite(largest) else None

    @property
    def not_finite(self) -> int:
        """The number of examples with an infinite or NaN output."""
        return sum(_not_finite(batch, size) for batch, size in zip(self.batches, self.sizes, strict=True))


def _difference(outputs: Tensor, reference: Tensor) -> float:
    same = (outputs == reference) | (outputs.isnan() & reference.isnan())
    wide = torch.complex128 if outputs.is_complex() else torch.float64
    differences = (outputs.to(wide) - reference.to(wide)).abs().masked_fill(same, 0)
    largest = differences.max().item() if differences.numel() else 0.0
    return largest if math.isfinite(largest) else math.inf


def _not_finite(batch: list[Tensor], size: int) -> int:
    found = torch.zeros(size, dtype=torch.bool)
    for tensor in batch:
        if is_batched(tensor, size):
            found |= ~tensor.reshape(size, -1).isfinite().all(1)
    return int(found.sum())
