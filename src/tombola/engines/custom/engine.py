"""The custom engine: trains with the user's own function."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from tombola.engines.custom.checks import check_parameters, check_returned, check_trained, parameter_shapes
from tombola.engines.custom.evaluations import EvaluateFunction, Evaluations, Metrics, as_metrics
from tombola.engines.custom.model import CustomModel
from tombola.engines.custom.step_counter import StepCounter, counting_steps
from tombola.engines.training_loop import Capacity
from tombola.pruning.hold import check_held, hold
from tombola.pruning.mask import State
from tombola.pruning.network_state import network_state
from tombola.runs.checkpoint import Checkpoint
from tombola.runs.initial_state import StateLoader, no_stored_states
from tombola.runs.outcome import Measures, Outcome
from tombola.runs.run import BaseRun
from tombola.utils.errors import InputError
from tombola.utils.random_state import seeded
from tombola.utils.seeds import Purpose, derive

TrainFunction = Callable[..., Metrics | Any]
"""`train(network)`, or with a parameter of that name `train(network, begin=k)`: k is the first iteration."""


class CustomRun(BaseRun):
    """One training by the user's own function."""

    procedure: str
    """The `fingerprint` of the function, of what it refers to, and of its settings."""
    at_mark: bool = False
    """It ends where the function calls `tombola.mark()`."""
    every: int | None = Field(default=None, ge=1)
    """The number of steps between evaluations; None if it is evaluated at its end, or decides itself."""
    minimize: bool | Annotated[tuple[str, ...], Field(strict=False)] | None = None
    """Whether lower is better for the judged figure, or the figures of which it is; None if known by their names."""
    stop_on: str | None = None
    """The figure whose best value is the early stop; None is the judged one."""

    def until_mark(self) -> CustomRun:
        """This training up to where the function calls `tombola.mark()`."""
        return self.model_copy(update={"at_mark": True})


@dataclass(frozen=True)
class CustomEngine:
    """Trains runs with the user's function, which gets a network that is held to the run's mask. Global random states
    start at the run's seed. Unfinished trainings are not checkpointed; the function may do so."""

    network: CustomModel
    function: TrainFunction
    evaluate: EvaluateFunction | None = None
    """Called every so many steps, and at the end; without it, what `function` returns is judged."""
    test: EvaluateFunction | None = None
    """Called once, with the weights of the early stop."""
    others: Mapping[str, TrainFunction] = field(default_factory=dict)
    """Other training functions, by the `procedure` of their runs."""

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
        start = network_state(network)  # before it is held, which tells used weights from unused ones
        evaluations = self._evaluations(network, start, run)
        with seeded(run.seed), hold(network, run.mask):
            if run.interpolates:
                final: State = {}
                iterations, timed = run.begin, False
                evaluations.evaluate_at(iterations)
            else:
                final, iterations, timed = self._train(network, run, start, evaluations)
            floats = (tensor for tensor in final.values() if tensor.is_floating_point() and tensor.itemsize > 1)
            finite = all(tensor.isfinite().all() for tensor in floats)
            tested = evaluations.tested() if finite else {}
            check_held(network)
        measures = Measures(diverged=True, iterations=iterations)
        if finite:
            figures: dict[str, Any] = evaluations.figures(tested)
            stop = evaluations.iterations[evaluations.best] if timed and evaluations.best is not None else None
            measures = Measures(diverged=False, iterations=iterations, stop_iteration=stop, **figures)
        curves = evaluations.curves() if evaluations.iterations else {"iteration": torch.tensor([iterations])}
        return [Outcome(final, curves, measures, self.name, time.monotonic() - began)]

    def evaluate_network(self, network: nn.Module, run: CustomRun) -> dict[str, float]:
        """What `evaluate`, which must be given, returns for this network, as at the end of the run."""
        evaluations = self._evaluations(network, network_state(network), run)
        evaluations.evaluate_at(run.begin)
        return evaluations.metrics[-1]

    def _evaluations(self, network: nn.Module, start: State, run: CustomRun) -> Evaluations:
        seed = derive(run.seed, Purpose.EVALUATION)
        return Evaluations(network, start, self.evaluate, seed, run.minimize, run.stop_on, self.test)

    def _train(
        self, network: nn.Module, run: CustomRun, start: State, evaluations: Evaluations
    ) -> tuple[State, int, bool]:
        """The final weights, the number of iterations, and whether it was evaluated before its end."""
        parameters = parameter_shapes(network, start)
        ends_early = run.at_mark or run.end is not None

        def evaluate(steps: int) -> None:
            evaluations.evaluate_at(run.begin + steps)

        with counting_steps(
            network,
            end=run.end and run.end - run.begin,
            at_mark=run.at_mark,
            every=run.every,
            begin=run.begin,
            on_evaluation=None if ends_early else evaluate,
        ) as counter:
            returned = self._call(network, run)
        if ends_early and not counter.reached:
            raise InputError(_why_not_reached(run, counter))
        if not ends_early and self.evaluate is None:
            check_returned(network)
        final = network_state(network, start)  # before evaluation, which may change the weights
        check_parameters("train", parameters, parameter_shapes(network, final))
        check_trained(network, start, final, run.mask)
        iterations = run.begin + counter.steps
        if ends_early:
            return final, iterations, False
        if self.evaluate is None:
            evaluations.add(iterations, as_metrics(returned))
        else:
            evaluations.evaluate_end(iterations, final)
        return final, iterations, run.every is not None or counter.called

    def _call(self, network: nn.Module, run: CustomRun) -> object:
        function = self.others.get(run.procedure, self.function)
        if run.start.trained is not None and accepts_begin(function):
            return function(network, begin=run.begin)
        return function(network)


def _why_not_reached(run: CustomRun, counter: StepCounter) -> str:
    if counter.raised:
        return "train: caught the exception that ends it at the rewinding point (`except:` or `BaseException`)"
    if run.at_mark:
        return 'rewind: "mark" needs a call of tombola.mark() in train, which returned without one'
    return (
        f"rewind, and candidates of stability: should be before the end of training, which took {counter.steps} "
        f"optimizer steps, not {run.end}"
    )


def accepts_begin(train: TrainFunction) -> bool:
    """Whether `train` has a parameter named `begin`."""
    try:
        return "begin" in inspect.signature(train).parameters
    except (TypeError, ValueError):
        return False
