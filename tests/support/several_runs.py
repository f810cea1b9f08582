"""Learners of several runs that do nothing, but take time by a clock of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tombola.engines.history import Evaluation
from tombola.engines.training_loop import SplitName
from tombola.pruning.mask import State


class Clock:
    """In place of the module `time`, for those who measure with it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class TimedLearner:
    """Its iterations take time: where it trains on an accelerator, only when somebody waits for the device."""

    def __init__(self, runs: int, clock: Clock, device: str = "cpu", seconds: float = 0.0) -> None:
        self.device = torch.device(device)
        self.runs = runs
        self.clock = clock
        self.seconds = seconds
        """An iteration takes these."""
        self.queued = 0.0
        self.steps: list[int] = []
        """The number of iterations of each call of `train`."""

    def train(self, orders: Tensor, first: int) -> None:
        assert first == sum(self.steps)
        self.steps.append(orders.shape[1])
        self.queued += orders.shape[1] * self.seconds
        if self.device.type == "cpu":
            self.wait()

    def wait(self) -> None:
        """For the device."""
        self.clock.now, self.queued = self.clock.now + self.queued, 0.0

    def take_losses(self) -> list[float]:
        self.wait()
        return [1.0] * self.runs

    def evaluate(self, split_name: SplitName, best: bool = False) -> list[Evaluation]:  # noqa: ARG002
        self.wait()
        return [Evaluation(1.0, 0.5)] * self.runs

    def keep_best(self, improved: Sequence[bool]) -> None:
        assert len(improved) == self.runs

    def weights(self) -> list[State]:
        return [{}] * self.runs

    def optimizer_states(self) -> list[State]:
        return [{}] * self.runs

    def load_optimizer_states(self, states: Sequence[State]) -> None:  # noqa: ARG002
        raise AssertionError

    def state_dict(self) -> dict[str, Tensor]:
        self.wait()
        return {"nothing": torch.zeros(())}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        assert list(state) == ["nothing"]
