"""The evaluations of the runs of a training loop, and the metrics computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tombola.runs.outcome import Measures


class Evaluation(NamedTuple):
    """Of a network on some examples."""

    loss: float
    """Mean cross-entropy."""
    accuracy: float
    """The fraction classified correctly."""


FIGURES = ("train_loss", "validation_loss", "validation_accuracy", "test_loss", "test_accuracy")
"""What an evaluation has of each run; of the test set only where it is asked for."""

NEVER = np.iinfo(np.int64).max


class History:
    """The evaluations of some runs. That of a run ends where a loss is not finite: then it has diverged."""

    def __init__(self, runs: int) -> None:
        self.iterations: list[int] = []
        """Of the evaluations."""
        self._figures: list[npt.NDArray[np.float64]] = []  # by evaluation: (figures, runs)
        self._diverged_at = np.full(runs, NEVER)  # the iteration of the evaluation that was not finite
        self._stop = np.full(runs, -1)  # the evaluation with the lowest validation loss, the first of several
        self._lowest = np.full(runs, np.inf)  # that loss

    def add(
        self,
        iteration: int,
        train_losses: Sequence[float],
        validation: Sequence[Evaluation],
        test: Sequence[Evaluation] | None = None,
    ) -> list[bool]:
        """Add an evaluation of every run. Returns which validation losses are lower than all before."""
        columns = [np.array(train_losses), *np.array(validation).T, *([] if test is None else np.array(test).T)]
        figures = np.stack(columns)
        finite = np.isfinite(figures[:2]).all(0)
        running = self._diverged_at == NEVER
        self._diverged_at[running & ~finite] = iteration
        better = running & finite & (figures[1] < self._lowest)
        self._stop[better] = len(self.iterations)
        self._lowest[better] = figures[1, better]
        self.iterations.append(iteration)
        self._figures.append(figures)
        found: list[bool] = better.tolist()
        return found

    @property
    def diverged(self) -> bool:
        """Whether all runs have."""
        return bool((self._diverged_at < NEVER).all())

    @property
    def improving(self) -> bool:
        """Whether the last evaluation is the early stop of every run."""
        return bool((self._stop == len(self.iterations) - 1).all())

    def measures(
        self,
        iterations: int,
        at_stop: Sequence[tuple[Evaluation, Evaluation]],
        at_end: Sequence[tuple[Evaluation, Evaluation]],
    ) -> list[Measures]:
        """The metrics of each finished run; each pair is of training and test examples."""
        return [
            self._measures(run, iterations, stop, end)
            for run, (stop, end) in enumerate(zip(at_stop, at_end, strict=True))
        ]

    def _measures(
        self, run: int, iterations: int, at_stop: tuple[Evaluation, Evaluation], at_end: tuple[Evaluation, Evaluation]
    ) -> Measures:
        if self._diverged_at[run] < NEVER:
            return Measures(diverged=True, iterations=int(self._diverged_at[run]))
        _, loss, accuracy, *_ = self._figures[self._stop[run]][:, run].tolist()
        figures: dict[str, Any] = {
            "validation_loss_at_stop": loss,
            "validation_accuracy_at_stop": accuracy,
            "train_accuracy_at_stop": at_stop[0].accuracy,
            "test_accuracy_at_stop": at_stop[1].accuracy,
            "train_accuracy": at_end[0].accuracy,
            "test_accuracy": at_end[1].accuracy,
        }
        stop = self.iterations[self._stop[run]]
        return Measures(diverged=False, iterations=iterations, stop_iteration=stop, **figures)

    def curves(self) -> list[dict[str, Tensor]]:
        """The evaluations of each run; see `Outcome`."""
        state = self.state_dict()
        lengths = np.searchsorted(self.iterations, self._diverged_at).tolist()
        return [
            {
                "iteration": state["iterations"][:length].clone(),
                **{name: column[:length].clone() for name, column in zip(FIGURES, columns, strict=False)},
            }
            if length
            else {}
            for length, columns in zip(lengths, state["figures"].permute(2, 1, 0), strict=True)
        ]

    def state_dict(self) -> dict[str, Tensor]:
        """Everything a checkpoint needs. `figures`: (evaluations, figures, runs)."""
        none = np.empty((0, len(FIGURES), len(self._stop)))
        return {
            "iterations": torch.tensor(self.iterations, dtype=torch.int64),
            "figures": torch.from_numpy(np.stack(self._figures) if self._figures else none),
            "diverged_at": torch.from_numpy(self._diverged_at.copy()),
            "stop": torch.from_numpy(self._stop.copy()),
            "lowest": torch.from_numpy(self._lowest.copy()),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.iterations = state["iterations"].tolist()
        self._figures = [*state["figures"].numpy()]
        self._diverged_at, self._stop, self._lowest = (
            state[name].clone().numpy() for name in ("diverged_at", "stop", "lowest")
        )
