"""The custom engine: trains with the user's own function."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tombola.engines.custom.checks import check_parameters, check_returned, check_trained, parameter_shapes
from tombola.engines.custom.model import CustomModel
from tombola.engines.custom.step_counter import StepCounter, counting_steps
from tombola.engines.training_loop import Capacity
from tombola.pruning.hold import check_held, hold
from tombola.pruning.network_state import network_state
from tombola.runs.initial_state import StateLoader, no_stored_states
from tombola.runs.outcome import Measures, Outcome
from tombola.runs.run import BaseRun
from tombola.runs.store import Checkpoint
from tombola.utils.errors import InputError
from tombola.utils.random_state import seeded

Metrics = float | Mapping[str, float]
"""A number, or several by name, of which the first is compared; higher is better unless `minimize` says otherwise."""

TrainFunction = Callable[..., Metrics | Any]
"""`train(network)`, or with a parameter of that name `train(network, begin=k)`: k is the first iteration."""

EvaluateFunction = Callable[[nn.Module], Metrics]

METRIC_PREFIX = "figure/"
"""Of the names of metrics among an outcome's curves."""


class CustomRun(BaseRun):
    """One training by the user's own function."""

    procedure: str
    """The `fingerprint` of the function, of what it refers to, and of its settings."""
    at_mark: bool = False
    """It ends where the function calls `tombola.mark()`."""


@dataclass(frozen=True)
class CustomEngine:
    """Trains runs with the user's function, which gets a network that is held to the run's mask. Global random states
    start at the run's seed. Unfinished trainings are not checkpointed; the function may do so."""

    network: CustomModel
    function: TrainFunction
    evaluate: EvaluateFunction | None = None

    @property
    def name(self) -> str:
        """`yours`, and the version of torch."""
        return f"yours, torch {torch.__version__}"

    def capacity(self, run: CustomRun) -> Capacity:  # noqa: ARG002 - the same for all
        return Capacity()

    def train(
        self,
        runs: Sequence[CustomRun],
        checkpoint: Checkpoint,  # noqa: ARG002 - the function may save checkpoints itself
        load_state: StateLoader = no_stored_states,
    ) -> list[Outcome]:
        """Raises `InputError` if the function returns before the iteration, or the mark, that the run ends at."""
        (run,) = runs
        began = time.monotonic()
        network = self.network.initial_network(run.start, load_state)
        run.mask.apply_(network)
        start = network_state(network)
        parameters = parameter_shapes(network, start)
        ends_early = run.at_mark or run.end is not None
        with seeded(run.seed), hold(network, run.mask):
            with counting_steps(network, run.end and run.end - run.begin, run.at_mark) as counter:
                returned = self._call(network, run)
            if ends_early and not counter.reached:
                raise InputError(_why_not_reached(run, counter))
            if not ends_early and self.evaluate is None:
                check_returned(network)
            final = network_state(network, start)  # before evaluation, which may change the weights
            check_parameters("train", parameters, parameter_shapes(network, final))
            check_trained(network, start, final, run.mask)
            metrics = {} if ends_early else self._metrics(network, returned)
            check_held(network)
        iterations = run.begin + counter.steps
        curves = {
            f"{METRIC_PREFIX}{name}": torch.tensor([value], dtype=torch.float64) for name, value in metrics.items()
        }
        curves["iteration"] = torch.tensor([iterations])
        finite = all(
            tensor.isfinite().all() for tensor in final.values() if tensor.is_floating_point() and tensor.itemsize > 1
        )
        measures = Measures(diverged=not finite, iterations=iterations)
        return [Outcome(final, curves, measures, self.name, time.monotonic() - began)]

    def _call(self, network: nn.Module, run: CustomRun) -> object:
        if run.start.trained is not None and accepts_begin(self.function):
            return self.function(network, begin=run.begin)
        return self.function(network)

    def _metrics(self, network: nn.Module, returned: object) -> dict[str, float]:
        """The metrics that `evaluate` returns, or without it those that `train` returned."""
        if self.evaluate is None:
            return as_metrics(returned)
        with torch.no_grad():
            return checked_metrics(self.evaluate(network.eval()), "evaluate")


def _why_not_reached(run: CustomRun, counter: StepCounter) -> str:
    if counter.raised:
        return "train: caught the exception that ends it at the rewinding point (`except:` or `BaseException`)"
    if run.at_mark:
        return 'rewind: "mark" needs a call of tombola.mark() in train, which returned without one'
    return f"rewind: should be before the end of training, which took {counter.steps} optimizer steps, not {run.end}"


def accepts_begin(train: TrainFunction) -> bool:
    """Whether `train` has a parameter named `begin`."""
    try:
        return "begin" in inspect.signature(train).parameters
    except (TypeError, ValueError):
        return False


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
