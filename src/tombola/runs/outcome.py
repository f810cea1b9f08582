"""Outcome: what came of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tombola.pruning.mask import Mask, State
from tombola.runs import sparse_state as packing
from tombola.utils.frozen_model import FrozenModel


class Measures(FrozenModel):
    """The figures of one run. Accuracies are fractions. All but the first two are None when it diverged."""

    diverged: bool
    """The loss was not finite at some iteration; training ended there."""
    iterations: int
    """How many iterations were trained."""
    stop_iteration: int | None = None
    """The early-stopping iteration: the first of minimum validation loss, found after training."""
    validation_loss_at_stop: float | None = None
    validation_accuracy_at_stop: float | None = None
    train_accuracy_at_stop: float | None = None
    test_accuracy_at_stop: float | None = None
    train_accuracy: float | None = None
    """At the end of training, over the training examples without those held out."""
    test_accuracy: float | None = None
    """At the end of training."""

    @property
    def gap_at_stop(self) -> float | None:
        """The generalisation gap at early stop: accuracy on the training examples minus that on the test set."""
        return _gap(self.train_accuracy_at_stop, self.test_accuracy_at_stop)

    @property
    def gap(self) -> float | None:
        """The same at the end of training."""
        return _gap(self.train_accuracy, self.test_accuracy)


def _gap(train: float | None, test: float | None) -> float | None:
    return None if train is None or test is None else train - test


@dataclass(frozen=True)
class Outcome:
    """What came of a run: the trained weights, the curves on the way, and the figures."""

    final: State
    """The `state_dict` at the end of training. Pruned weights are zero. Empty of a run that only evaluates weights
    between those of two others, from which they can be had again."""
    curves: dict[str, Tensor]
    """`iteration` (int64) and, at each of these, `train_loss` (the mean since the evaluation before),
    `validation_loss`, `validation_accuracy` and, where asked for, `test_loss` and `test_accuracy` (float64)."""
    measures: Measures
    engine: str
    """Which engine answered."""
    seconds: float
    """How long the training took."""
    optimizer: State = field(default_factory=dict)
    """What the optimizer remembers at the end, of a run that keeps it, by torch's names and those of the parameters:
    `momentum_buffer/fc1.weight`, `exp_avg/fc1.weight`, `step/fc1.weight`. Of pruned weights it is zero."""

    def to_tensors(self, mask: Mask) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The outcome as tensors and JSON values, for a file. Of a masked layer only the kept weights are written."""
        curves = {f"curve/{name}": values for name, values in self.curves.items()}
        about = {"measures": self.measures.model_dump(), "engine": self.engine, "seconds": self.seconds}
        about["curves"] = list(self.curves)  # a file of tensors has an order of its own
        remembered = packing.pack(self.optimizer, optimizer_mask(self.optimizer, mask))
        optimizer = {f"optimizer/{name}": tensor for name, tensor in remembered.items()}
        return packing.pack(self.final, mask) | curves | optimizer, about

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], about: dict[str, Any]) -> Outcome:
        """Read back what `to_tensors` gave."""
        final, _ = packing.unpack(tensors)
        optimizer, _ = packing.unpack(_under("optimizer/", tensors))
        measures = Measures(**about["measures"])
        curves = _under("curve/", tensors)
        curves = {name: curves[name] for name in about.get("curves", curves)}
        return cls(final, curves, measures, about["engine"], about["seconds"], optimizer)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def optimizer_mask(optimizer: State, mask: Mask) -> Mask:
    """The mask of each entry of an optimizer's state that has a number for every weight of a masked parameter."""
    of_entry = {entry: mask.get(entry.partition("/")[2]) for entry in optimizer}
    return Mask({e: kept for e, kept in of_entry.items() if kept is not None and kept.shape == optimizer[e].shape})


def without_pruned(optimizer: State, mask: Mask) -> State:
    """The state of an optimizer that remembers nothing of the weights that `mask` prunes."""
    return optimizer | {
        entry: optimizer[entry].masked_fill(~kept, 0) for entry, kept in optimizer_mask(optimizer, mask).items()
    }
