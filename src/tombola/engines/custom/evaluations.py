"""Evaluations of a network while the user's function trains it, and its best weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tombola.engines.custom.direction import Minimize, lower_is_better
from tombola.pruning.hold import check_held
from tombola.pruning.mask import State
from tombola.pruning.network_state import network_state
from tombola.runs.outcome import FIGURE_PREFIX, figures_of
from tombola.utils.errors import InputError, unknown
from tombola.utils.random_state import seeded

Metrics = float | Mapping[str, float]
"""A number, or several by name, of which the first is judged."""

EvaluateFunction = Callable[[nn.Module], Metrics]


class Evaluations:
    """What `evaluate` returned at some iterations of one training. The weights of the early stop are kept: of the
    first evaluation with the best value of one figure. A value that is not finite is never the best."""

    def __init__(
        self,
        network: nn.Module,
        evaluate: EvaluateFunction | None,
        seed: int,
        minimize: Minimize | None = None,
        stop_on: str | None = None,
        test: EvaluateFunction | None = None,
    ) -> None:
        """Random states start at `seed` in each evaluation. Early stop is by the figure `stop_on`; by default by the
        judged one, the first. Its weights are kept only if there is a `test` of them."""
        self.network = network
        self.iterations: list[int] = []
        self.metrics: list[dict[str, float]] = []
        self.best: int | None = None
        """The index of the evaluation at the early stop."""
        self._best_state: State = {}  # the weights there, unless these are the last
        self._evaluate = evaluate
        self._test = test
        self._seed = seed
        self._minimize = minimize
        self._stop_on = stop_on

    def evaluate_at(self, iteration: int, last: bool = False) -> None:
        """Evaluate the network, once at each iteration. Raises `InputError` if the function does not return numbers,
        or pruned weights are not zero; its own exceptions pass through."""
        if self._evaluate is None:
            raise InputError("tombola.evaluate(): needs a function; give evaluate to find_ticket")
        if self.iterations and self.iterations[-1] == iteration:
            return
        found = checked_metrics(call_evaluation(self._evaluate, self.network, self._seed), "evaluate")
        check_held(self.network)
        if self.add(iteration, found) and not last and self._test is not None:
            self._best_state = network_state(self.network)

    def add(self, iteration: int, metrics: dict[str, float]) -> bool:
        """Add an evaluation. Returns whether it is the best so far."""
        self.iterations.append(iteration)
        self.metrics.append(metrics)
        if self._stop_value(-1) <= (-math.inf if self.best is None else self._stop_value(self.best)):
            return False
        self.best = len(self.metrics) - 1
        return True

    def _stop_value(self, index: int) -> float:
        """The figure of early stop, with the sign that makes higher better; -inf if it is missing or not finite."""
        metrics = self.metrics[index]
        name = self._stop_on or next(iter(metrics), "")
        if self._stop_on and metrics and name not in metrics:
            raise unknown("figure in stop_on", name, metrics)
        value = metrics.get(name, math.nan)
        sign = -1 if lower_is_better(name, self._minimize) else 1
        return sign * value if math.isfinite(value) else -math.inf

    def tested(self, restore: Callable[[State], object]) -> dict[str, float]:
        """What `test` returns for the weights of the early stop; a single number has the name of the judged figure.
        Empty without `test`, or if nothing was evaluated."""
        if self._test is None or not self.metrics:
            return {}
        if self._best_state and self.best is not None and self.best < len(self.metrics) - 1:
            restore(self._best_state)
        returned = call_evaluation(self._test, self.network, self._seed)
        if not isinstance(returned, Mapping):
            judged = next((name for metrics in self.metrics for name in metrics), "figure")
            returned = {judged: returned}
        return checked_metrics(returned, "test")

    def curves(self) -> dict[str, Tensor]:
        """See `Outcome.curves`; NaN where a figure is missing."""
        names = dict.fromkeys(name for metrics in self.metrics for name in metrics)
        curves = {
            f"{FIGURE_PREFIX}{name}": torch.tensor([m.get(name, math.nan) for m in self.metrics], dtype=torch.float64)
            for name in names
        }
        return curves | {"iteration": torch.tensor(self.iterations)}

    def figures(self, tested: Mapping[str, float]) -> dict[str, float]:
        """See `Measures.figures`; `tested` is what `test` returned."""
        at_stop = {} if self.best is None else self.metrics[self.best]
        return {
            **figures_of("validation_{}_at_stop", at_stop),
            **figures_of("test_{}_at_stop", tested),
            **figures_of("validation_{}", self.metrics[-1] if self.metrics else {}),
        }


def call_evaluation(function: EvaluateFunction, network: nn.Module, seed: int) -> object:
    """Call the function with the network in evaluation mode, without gradients and autocast, from the random states
    of a seed. Modes and random states are then as they were before."""
    with evaluation_mode(network), seeded(seed):
        return function(network)


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Within it, the network is in evaluation mode, without gradients and autocast."""
    modes = {module: module.training for module in network.modules()}
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        network.eval()
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training


def as_metrics(value: Any) -> dict[str, float]:
    """The metrics in a function's return value, by name, without what is not a number; empty if it has none."""
    named = value if isinstance(value, Mapping) else {"figure": value}
    numbers = {str(name): _as_number(one) for name, one in named.items()}
    return {name: number for name, number in numbers.items() if number is not None}


def _as_number(value: Any) -> float | None:
    """A number, or a tensor or array of one, as a float; None if it is neither. Truth values are not numbers."""
    try:
        number = value.item() if hasattr(value, "item") else value
        return None if isinstance(number, bool | str | bytes) else float(number)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # RuntimeError: a tensor of several numbers
        return None


def checked_metrics(value: Any, function: str) -> dict[str, float]:
    """The same. Raises `InputError`, which names the function, if there are none."""
    found = as_metrics(value)
    if not found:
        raise InputError(f"{function}: should return a number or a dict of numbers, not {value!r:.60}")
    return found
