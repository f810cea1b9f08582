"""The engine that is yours: it calls the user's own training function."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from tombola.engines.capacity import Capacity
from tombola.engines.custom.run import (
    CustomModel,
    CustomRun,
    Evaluate,
    Train,
    as_figures,
    figures,
    network_state,
    seeded,
    takes_beginning,
)
from tombola.engines.custom.step_counter import StepCounter, counting_steps
from tombola.pruning.hold import hold
from tombola.pruning.mask import State
from tombola.runs.initial_state import Recall, no_earlier_runs
from tombola.runs.outcome import Measures, Outcome
from tombola.runs.store import Checkpoint
from tombola.utils.errors import InputError

FIGURE = "figure/"
"""Before the names of figures among an outcome's curves."""


@dataclass(frozen=True)
class CustomEngine:
    """Has runs trained by a function, whose network is held to the run's mask all the while.

    Global random states begin at the run's seed. A training under way is not checkpointed: the function may do that.
    """

    network: CustomModel
    function: Train
    evaluate: Evaluate | None = None

    @property
    def name(self) -> str:
        """`yours`, and the version of torch."""
        return f"yours, torch {torch.__version__}"

    def capacity(self, run: CustomRun) -> Capacity:  # noqa: ARG002 - the same for all
        """See `tombola.engines.Engine`."""
        return Capacity()

    def train(
        self,
        runs: Sequence[CustomRun],
        checkpoint: Checkpoint,  # noqa: ARG002 - what is under way is the function's own affair
        recall: Recall = no_earlier_runs,
    ) -> list[Outcome]:
        """Train the one run in `runs`; see `tombola.engines.Engine`.

        Raises `InputError` where the function returns before the iteration, or the mark, that the run ends at.
        """
        (run,) = runs
        began = time.monotonic()
        network = self.network.begin(run.start, recall)
        run.mask.apply_(network)
        start = network_state(network)
        ends = run.at_mark or run.end is not None
        with seeded(run.seed), hold(network, run.mask):
            with counting_steps(network, run.end and run.end - run.begin, run.at_mark) as watch:
                returned = self._call(network, run)
            if ends and not watch.reached:
                raise InputError(_never(run, watch))
            final = network_state(network)  # before anybody evaluates it, who may have other weights in mind
            found = {} if ends else self._figures(network, returned)
        _check(start, final, run)
        iterations = run.begin + watch.steps
        curves = {f"{FIGURE}{name}": torch.tensor([value], dtype=torch.float64) for name, value in found.items()}
        curves["iteration"] = torch.tensor([iterations])
        finite = all(tensor.isfinite().all() for tensor in final.values() if tensor.is_floating_point())
        measures = Measures(diverged=not finite, iterations=iterations)
        return [Outcome(final, curves, measures, self.name, time.monotonic() - began)]

    def _call(self, network: nn.Module, run: CustomRun) -> object:
        if run.start.trained is not None and takes_beginning(self.function):
            return self.function(network, begin=run.begin)
        return self.function(network)

    def _figures(self, network: nn.Module, returned: object) -> dict[str, float]:
        """What `evaluate` says of the network, or `train` said."""
        if self.evaluate is None:
            return as_figures(returned)
        with torch.no_grad():
            return figures(self.evaluate(network.eval()), "evaluate")


def _check(start: State, final: State, run: CustomRun) -> None:
    """Refuse what cannot be pruned and rewound."""
    for name, kept in run.mask.items():
        if name not in final or final[name].shape != kept.shape:
            became = f"gave {name} another shape" if name in final else f"took {name} away from the network"
            raise InputError(f"train: {became}: give a function that makes the network as it will be")
    if all(name in final and torch.equal(tensor, final[name]) for name, tensor in start.items()):
        raise InputError("train: left the network that it was given as it was; does it train another one?")


def _never(run: CustomRun, watch: StepCounter) -> str:
    if watch.thrown:
        return "train: caught the signal that ends it where weights are rewound to (`except:` or `BaseException`)"
    if run.at_mark:
        return 'rewind: "mark" is where train calls tombola.mark(), and it returned without'
    return f"rewind: should be before the end of training, which took {watch.steps} optimizer steps, not {run.end}"
