"""The evaluations of one training, and the metrics computed from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tombola.runs.outcome import Measures


class Evaluation(NamedTuple):
    """Of a network on some examples."""

    loss: float
    """Mean cross-entropy."""
    accuracy: float
    """The fraction classified correctly."""


@dataclass
class History:
    """One row for each evaluation. It ends where a loss is not finite: then the training has diverged."""

    rows: list[dict[str, float]] = field(default_factory=list)
    diverged_at: int | None = None
    """The iteration of the evaluation at which a loss was not finite."""

    def add(self, iteration: int, train_loss: float, validation: Evaluation, test: Evaluation | None) -> bool:
        """Add an evaluation. Returns whether its validation loss is lower than all before."""
        if self.diverged_at is not None:
            return False
        if not (math.isfinite(train_loss) and math.isfinite(validation.loss)):
            self.diverged_at = iteration
            return False
        best = not self.rows or validation.loss < self.stop["validation_loss"]
        row = {
            "iteration": iteration,
            "train_loss": train_loss,
            "validation_loss": validation.loss,
            "validation_accuracy": validation.accuracy,
        }
        if test is not None:
            row |= {"test_loss": test.loss, "test_accuracy": test.accuracy}
        self.rows.append(row)
        return best

    @property
    def stop(self) -> dict[str, float]:
        """The row of the early-stopping iteration."""
        return min(self.rows, key=lambda row: row["validation_loss"])

    def measures(
        self, iterations: int, at_stop: tuple[Evaluation, Evaluation], at_end: tuple[Evaluation, Evaluation]
    ) -> Measures:
        """The metrics of the finished training; each pair is of training and test examples."""
        if self.diverged_at is not None:
            return Measures(diverged=True, iterations=self.diverged_at)
        figures: dict[str, Any] = {
            "validation_loss_at_stop": self.stop["validation_loss"],
            "validation_accuracy_at_stop": self.stop["validation_accuracy"],
            "train_accuracy_at_stop": at_stop[0].accuracy,
            "test_accuracy_at_stop": at_stop[1].accuracy,
            "train_accuracy": at_end[0].accuracy,
            "test_accuracy": at_end[1].accuracy,
        }
        stop = int(self.stop["iteration"])
        return Measures(diverged=False, iterations=iterations, stop_iteration=stop, **figures)

    def curves(self) -> dict[str, Tensor]:
        """The columns as tensors; see `Outcome`."""
        names = self.rows[0] if self.rows else {}
        kinds = {name: torch.int64 if name == "iteration" else torch.float64 for name in names}
        return {name: torch.tensor([row[name] for row in self.rows], dtype=kinds[name]) for name in names}
