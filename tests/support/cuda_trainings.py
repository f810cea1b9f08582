"""Trainings on a CUDA device, and what must hold of each. They fail by an exception."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.cuda_device import forbid_waits, no_log_warnings
from tests.support.networks import CONVOLUTIONAL
from tests.support.training import (
    Interrupted,
    InterruptingCheckpoint,
    batch_orders,
    dense_run,
    ensemble_learner,
    no_checkpoint,
    same_bits,
    same_state,
    variants,
)
from tombola.engines.eager import Eager, reproducible
from tombola.engines.stacked import cuda_graph
from tombola.engines.stacked.engine import Stacked
from tombola.engines.training_loop import TrainingLoop
from tombola.pruning.mask import State
from tombola.runs.checkpoint import Checkpoint
from tombola.runs.initial_state import StateLoader, no_stored_states
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run

CHANGES: dict[str, dict[str, Any]] = {
    "adam": {},
    "sgd with momentum": {"training__optimizer": "sgd", "training__momentum": 0.9},
    "cosine with warm-up": {"training__schedule": "cosine", "training__warmup": "5it"},
    "sgd with steps": {
        "training__optimizer": "sgd",
        "training__schedule": "step",
        "training__milestones": ["7it"],
    },
    "convolutional": {"model": CONVOLUTIONAL},
    "decay of weights only": {
        "model": CONVOLUTIONAL,
        "training__weight_decay": 0.01,
        "training__decay_normalisation": False,
    },
    "augmented": {"data__crop": 1, "data__flip": True},
    "bf16": {"training__precision": "bf16"},
    "test curve": {"training__test_curve": True},
}
"""Of the dense run of a tiny recipe."""


def cuda_runs(name: str, count: int = 3) -> list[Run]:
    """Runs of one shape with the `CHANGES` of this name: seven validation intervals of two iterations."""
    return variants(dense_run(training__length="14it", training__evaluate_every="2it", **CHANGES[name]), count)


def stacked(
    runs: Sequence[Run], checkpoint: Checkpoint | None = None, load_state: StateLoader = no_stored_states
) -> list[Outcome]:
    with no_log_warnings():
        return Stacked(None, "cuda").train(runs, checkpoint or no_checkpoint(), load_state)


def eager(run: Run) -> Outcome:
    (outcome,) = Eager(None, "cuda").train([run], no_checkpoint())
    return outcome


@contextlib.contextmanager
def single_launches() -> Iterator[None]:
    """No graph is captured within it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_graph, "WARM_UP_CALLS", 10**9)
        yield


@contextlib.contextmanager
def no_waits_between_evaluations() -> Iterator[None]:
    """Within it a wait during a validation interval raises `RuntimeError`."""
    train = TrainingLoop._train

    def without_waits(loop: TrainingLoop, steps: int) -> None:
        with forbid_waits():
            train(loop, steps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingLoop, "_train", without_waits)
        yield


def check_stack(name: str, folder: Path) -> list[Outcome]:
    """A captured graph gives the bits that single launches give, and those of a stack that is interrupted after the
    capture and resumed. The host waits only for evaluations."""
    runs, path = cuda_runs(name), folder / "checkpoint.safetensors"
    with no_waits_between_evaluations():
        captured = stacked(runs)
        with single_launches():
            assert all(map(same_bits, captured, stacked(runs)))
        with pytest.raises(Interrupted):
            stacked(runs, InterruptingCheckpoint(path, saves=5))
        assert all(map(same_bits, captured, stacked(runs, Checkpoint(path))))
    return captured


def learner_states(name: str) -> list[Any]:
    """Evaluations of a learner with its best weights, which change; and its weights after further steps, when its
    graphs are captured, and after these steps again from a state that was loaded into it."""
    runs = cuda_runs(name)
    device = torch.device("cuda")
    with no_log_warnings(), reproducible(0, device):
        learner, orders = ensemble_learner(runs, device), batch_orders(runs, 12)
        scores, states = [], []
        for first in (0, 3, 6):
            learner.train(orders[:, first : first + 3], first)
            learner.keep_best([True] * len(runs))
            scores += [learner.evaluate("validation", best=True) for _ in range(2)]
        saved = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
        for _ in range(2):
            learner.train(orders[:, 9:], 9)
            states.append(learner.weights())
            learner.load_state_dict(saved)
        return [scores, states]


def check_learner(name: str) -> None:
    """Graphs follow the best weights, and a state that is loaded after their capture."""
    scores, (once, again) = learner_states(name)
    with single_launches():
        expected_scores, (expected, _) = learner_states(name)
    assert scores == expected_scores
    for some in (once, again):
        assert all(map(same_state, some, expected))


def check_paused() -> None:
    """Runs that pause and resume, with their optimizers, end with the weights of whole ones."""
    runs = variants(dense_run(training__length="20it", training__evaluate_every="5it"), 2)
    halves = [run.paused(7) for run in runs]
    known = {half.key: outcome for half, outcome in zip(halves, stacked(halves), strict=True)}

    def load_state(key: str, *, optimizer: bool = False) -> State:
        return known[key].optimizer if optimizer else known[key].final

    resumed = stacked([run.resuming(half) for run, half in zip(runs, halves, strict=True)], load_state=load_state)
    for some, whole in zip(resumed, stacked(runs), strict=True):
        assert all(torch.equal(some.final[name], whole.final[name]) for name in whole.final)


def check_eager(name: str) -> list[Outcome]:
    """Trainings one by one, with waits only for evaluations."""
    with no_waits_between_evaluations(), no_log_warnings():
        return [eager(run) for run in cuda_runs(name)]
