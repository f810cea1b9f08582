"""Evaluations of a network while the user's function trains it, and its best weights."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tombola.engines.custom.direction import Minimize, lower_is_better
from tombola.engines.custom.evaluation_mode import evaluation_mode
from tombola.engines.custom.model import restore_network
from tombola.pruning.hold import check_held
from tombola.pruning.mask import State
from tombola.pruning.network_state import network_state, same_state
from tombola.runs.outcome import FIGURE_PREFIX, figures_of
from tombola.utils.errors import InputError, unknown

Metrics = float | Mapping[str, float]
"""A number, or several by name, of which the first is judged."""

EvaluateFunction = Callable[[nn.Module], Metrics]


class Evaluations:
    """What `evaluate` returned at some iterations of one training. The early stop is the first evaluation with the
    best value of one figure; its weights are kept for `test`. A value that is not finite is never the best."""

    def __init__(
        self,
        network: nn.Module,
        start: State,
        evaluate: EvaluateFunction | None,
        seed: int,
        minimize: Minimize | None = None,
        stop_on: str | None = None,
        test: EvaluateFunction | None = None,
    ) -> None:
        """`start` is the network's state before the training: wrapped layers keep their names in it. Random states
        start at `seed` in each evaluation. Early stop is by the figure `stop_on`; by default by the judged one, the
        first."""
        self.network = network
        self.iterations: list[int] = []
        self.metrics: list[dict[str, float]] = []
        self.best: int | None = None
        """The index of the evaluation at the early stop."""
        self._start = start
        self._last: State = {}  # the weights of the last evaluation
        self._best_states: deque[State] = deque(maxlen=2)  # of the best, and of the best before it, for `test`
        self._evaluate = evaluate
        self._test = test
        self._seed = seed
        self._minimize = minimize
        self._stop_on = stop_on

    def evaluate_at(self, iteration: int) -> None:
        """Evaluate the network, once at each iteration. Raises `InputError` if the function does not return numbers,
        or pruned weights are not zero; its own exceptions pass through."""
        if not self.iterations or self.iterations[-1] != iteration:
            self._add(iteration, network_state(self.network, self._start))

    def evaluate_end(self, iteration: int, final: State) -> None:
        """Evaluate the `final` weights. Where others were evaluated after the same step, as before the training
        loaded its best weights, this takes the place of that."""
        if self.iterations and self.iterations[-1] == iteration:
            if same_state(self._last, final):
                return
            self._drop_last()
        self._add(iteration, final)

    def _add(self, iteration: int, state: State) -> None:
        if self._evaluate is None:
            raise InputError("tombola.evaluate(): needs a function; give evaluate to find_ticket")
        self._last = state
        figures = checked_metrics(self._call(self._evaluate, state), "evaluate")
        if self.add(iteration, figures) and self._test is not None:
            self._best_states.append(state)

    def _drop_last(self) -> None:
        del self.iterations[-1], self.metrics[-1]
        if self.best == len(self.metrics):
            values = [self._stop_value(index) for index in range(len(self.metrics))]
            self.best = values.index(max(values)) if values and max(values) > -math.inf else None
            if self._best_states:
                self._best_states.pop()

    def _call(self, function: EvaluateFunction, state: State) -> object:
        check_held(self.network)
        with evaluation_mode(self.network, state, self._seed):
            returned = function(self.network)
            check_held(self.network)
        return returned

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
        sign = -1 if lower_is_better(name, self._minimize, name == next(iter(metrics), "")) else 1
        return sign * value if math.isfinite(value) else -math.inf

    def tested(self) -> dict[str, float]:
        """What `test` returns for the weights of the early stop; a single number has the name of the judged figure.
        Empty without `test`, and if there were evaluations during the training, but none was finite."""
        if self._test is None or not self.metrics or (self.best is None and len(self.metrics) > 1):
            return {}
        state = self._best_states[-1] if self._best_states else network_state(self.network, self._start)
        if self.best is not None and self.best < len(self.metrics) - 1:
            restore_network(self.network, state)
        returned = self._call(self._test, state)
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
