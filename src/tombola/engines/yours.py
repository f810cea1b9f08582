"""The engine that is yours: it calls the user's own training function."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from tombola.engines.capacity import Capacity
from tombola.errors import InputError
from tombola.holding import hold
from tombola.marking import watching
from tombola.outcome import Measures, Outcome
from tombola.own import Evaluate, OwnNetwork, OwnRun, Train, figures, seeded, snapshot, takes_beginning
from tombola.starting import Recall, unknown_runs
from tombola.store import Checkpoint


@dataclass(frozen=True)
class Yours:
    """Has runs trained by a function, whose network is held to the run's mask all the while.

    Global random states begin at the run's seed. A training under way is not checkpointed: the function may do that.
    """

    network: OwnNetwork
    function: Train
    evaluate: Evaluate | None = None

    @property
    def name(self) -> str:
        """`yours`, and the version of torch."""
        return f"yours, torch {torch.__version__}"

    def capacity(self, run: OwnRun) -> Capacity:  # noqa: ARG002 - the same for all
        """See `tombola.engines.Engine`."""
        return Capacity()

    def train(
        self,
        runs: Sequence[OwnRun],
        checkpoint: Checkpoint,  # noqa: ARG002 - what is under way is the function's own affair
        recall: Recall = unknown_runs,
    ) -> list[Outcome]:
        """Train the one run in `runs`; see `tombola.engines.Engine`.

        Raises `InputError` where the function returns before the iteration, or the mark, that the run ends at.
        """
        (run,) = runs
        began = time.monotonic()
        network = self.network.begin(run.start, recall)
        training = network.training
        ends = run.at_mark or run.end is not None
        with seeded(run.seed), hold(network, run.mask):
            with watching(network, run.end and run.end - run.begin, run.at_mark) as watch:
                returned = self._call(network, run.begin)
            if ends and not watch.reached:
                raise InputError(_never(run, watch.steps))
            found = {} if ends else self._figures(network, returned)
            final = snapshot(network)
        network.train(training)
        iterations = run.begin + watch.steps
        curves = {name: torch.tensor([value], dtype=torch.float64) for name, value in found.items()}
        curves["iteration"] = torch.tensor([iterations])
        measures = Measures(
            diverged=not all(final[name].isfinite().all() for name in run.mask), iterations=iterations
        )
        return [Outcome(final, curves, measures, self.name, time.monotonic() - began)]

    def _call(self, network: nn.Module, begin: int) -> object:
        if takes_beginning(self.function):
            return self.function(network, begin=begin)
        return self.function(network)

    def _figures(self, network: nn.Module, returned: object) -> dict[str, float]:
        """What `evaluate` says of the network, or `train` said."""
        if self.evaluate is not None:
            with torch.no_grad():
                return figures(self.evaluate(network.eval()), "evaluate")
        return figures(returned, "train") if isinstance(returned, int | float | Mapping) else {}


def _never(run: OwnRun, steps: int) -> str:
    if run.at_mark:
        return 'rewind: "mark" is where train calls tombola.mark(), and it returned without'
    return f"rewind: should be before the end of training, which took {steps} optimizer steps, not {run.end}"
