"""Outcome: the result of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ConfigDict, Field, model_validator
from torch import Tensor

from tombola.pruning.mask import Mask, State
from tombola.runs.sparse_state import pack, strip_prefix, unpack
from tombola.utils.frozen_model import FrozenModel

FIGURE_PREFIX = "figure/"
"""The prefix of the names of the user's figures among an outcome's curves."""


def figures_of(name: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics as figures of `Measures`; `name` is a format of their names. Figures that are not finite are left out.
    Others are rounded to the seven digits of float32, so that values that were computed in different ways are
    equal."""
    return {name.format(metric): float(f"{v:.7g}") for metric, v in metrics.items() if math.isfinite(v)}


class Measures(FrozenModel):
    """The results of one run, as one flat JSON object."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float] = Field(init=False)

    diverged: bool
    """Whether a loss was not finite, which ended the training."""
    iterations: int
    """The number of iterations trained."""
    stop_iteration: int | None = None
    """The early-stopping iteration: the first with the best validation figure (in recipes, the loss), found after
    training; None if the run diverged, or was evaluated only at its end."""

    @model_validator(mode="before")
    @classmethod
    def _without_missing(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if value is not None or name in cls.model_fields}

    @property
    def figures(self) -> dict[str, float]:
        """The measured figures by name: SPLIT_METRIC_at_stop for the weights at early stop, and SPLIT_METRIC for the
        final weights, such as `validation_loss_at_stop` and `test_accuracy`. Accuracies are fractions. Empty if the
        run diverged."""
        return self.__pydantic_extra__

    def __getitem__(self, name: str) -> float | None:
        """The figure of this name, or `stop_iteration`; None if it is missing."""
        return self.stop_iteration if name == "stop_iteration" else self.figures.get(name)


@dataclass(frozen=True)
class Outcome:
    """The result of a run: the trained weights, the learning curves, and the metrics."""

    final: State
    """The `state_dict` at the end of training. Pruned weights are zero. Empty for a run that only evaluates
    interpolated weights, which can be computed again from the two runs at the ends of the line."""
    curves: dict[str, Tensor]
    """`iteration` (int64) and, at each of these, `train_loss` (the mean since the previous evaluation),
    `validation_loss`, `validation_accuracy` and, with `test_curve`, `test_loss` and `test_accuracy` (float64). For a
    user's training function: `iteration`, and `figure/NAME` for each figure that `evaluate` returned."""
    measures: Measures
    engine: str
    """The engine that trained the run, with the versions that its bits may depend on."""
    seconds: float
    """The duration of the training in seconds."""
    optimizer: State = field(default_factory=dict)
    """With `keeps_optimizer`, the optimizer's state at the end. Names combine torch's name and that of the parameter:
    `momentum_buffer/fc1.weight`, `exp_avg/fc1.weight`, `step/fc1.weight`. It is zero for pruned weights."""

    def to_tensors(self, mask: Mask) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The outcome as tensors and JSON values, for a file. For masked layers, only the kept weights are
        written."""
        curves = {f"curve/{name}": values for name, values in self.curves.items()}
        about = {"measures": self.measures.model_dump(), "engine": self.engine, "seconds": self.seconds}
        about["curves"] = list(self.curves)  # safetensors does not keep the order of tensors, nor JSON that of keys
        about["figures"] = list(self.measures.figures)
        packed = pack(self.optimizer, optimizer_mask(self.optimizer, mask))
        optimizer = {f"optimizer/{name}": tensor for name, tensor in packed.items()}
        return pack(self.final, mask) | curves | optimizer, about

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], about: dict[str, Any]) -> Outcome:
        """The inverse of `to_tensors`."""
        final, _ = unpack(tensors)
        optimizer, _ = unpack(strip_prefix(tensors, "optimizer"))
        curves = strip_prefix(tensors, "curve")
        curves = {name: curves[name] for name in about.get("curves", curves)}
        saved = about["measures"]
        order = [name for name in about.get("figures", saved) if name in saved]
        measures = Measures(**{name: saved[name] for name in (*Measures.model_fields, *order) if name in saved})
        if not (measures.diverged or measures.figures):  # an old outcome of a training function, without figures
            own = {
                name.removeprefix(FIGURE_PREFIX): float(c[-1]) for name, c in curves.items() if FIGURE_PREFIX in name
            }
            figures: dict[str, Any] = figures_of("validation_{}_at_stop", own) | figures_of("validation_{}", own)
            measures = Measures(diverged=False, iterations=measures.iterations, **figures)
        return cls(final, curves, measures, about["engine"], about["seconds"], optimizer)


def optimizer_mask(optimizer: State, mask: Mask) -> Mask:
    """The masks of those entries of an optimizer's state that are shaped like a masked parameter."""
    of_entry = {entry: mask.get(entry.partition("/")[2]) for entry in optimizer}
    return Mask({e: kept for e, kept in of_entry.items() if kept is not None and kept.shape == optimizer[e].shape})


def without_pruned(optimizer: State, mask: Mask) -> State:
    """The state of an optimizer, zero for the weights that `mask` prunes."""
    return optimizer | {
        entry: optimizer[entry].masked_fill(~kept, 0) for entry, kept in optimizer_mask(optimizer, mask).items()
    }
