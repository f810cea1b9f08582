"""An engine that answers runs without training them, alike on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tombola.engines.training_loop import Capacity
from tombola.runs.initial_state import masked_network
from tombola.runs.outcome import Measures, Outcome
from tombola.runs.run import Run
from tombola.utils.seeds import Purpose, derive
from tombola.zoo.datasets import prepare

RESULTS = {"dense": (0.9, 400), "ticket": (0.9, 300), "reinit": (0.8, 440)}
"""Test accuracy and iteration at early stop, by branch. Runs differ from it a little."""

INITIAL_SEEDS = {derive(0, Purpose.WEIGHTS, replicate) for replicate in range(10)}
"""Of experiments with seed 0. Runs with other initial weights are of the control `reinit`."""


def branch(run: Run) -> str:
    if run.mask.count == run.mask.size:
        return "dense"
    return "ticket" if run.start.seed in INITIAL_SEEDS else "reinit"


class FakeEngine:
    """Weights and metrics are a function of the run alone, and differ between runs."""

    def capacity(self, run: Run) -> Capacity:  # noqa: ARG002
        return Capacity()

    def train(self, runs: Sequence[Run], checkpoint: object, load_state: Any) -> list[Outcome]:  # noqa: ARG002
        return [self._outcome(run, load_state) for run in runs]

    def _outcome(self, run: Run, load_state: Any) -> Outcome:
        random = np.random.default_rng(int(run.key, 16))
        network = masked_network(run, load_state)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += torch.from_numpy(random.standard_normal(parameter.shape))
        run.mask.apply_(network)
        x, y = (test := prepare(run.data).test)[torch.arange(len(test))]
        with torch.no_grad():
            test_accuracy = float((network.eval()(x).argmax(1) == y).float().mean())
        accuracy, stop = RESULTS[branch(run)]
        accuracy += random.uniform(-0.003, 0.003)
        measures = Measures(
            diverged=False,
            iterations=run.last,
            stop_iteration=stop + 20 * int(random.integers(-1, 2)),
            validation_loss_at_stop=random.uniform(0.1, 0.11),
            validation_accuracy_at_stop=accuracy,
            train_accuracy_at_stop=accuracy,
            test_accuracy_at_stop=accuracy,
            train_accuracy=accuracy,
            test_accuracy=test_accuracy,
        )
        curves = {
            "iteration": torch.tensor([run.last]),
            **{name: torch.tensor([0.1], dtype=torch.float64) for name in ("validation_loss", "validation_accuracy")},
        }
        return Outcome(network.state_dict(), curves, measures, "fake", 0.0)
