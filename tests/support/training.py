"""Short trainings with any engine, and comparisons of what they give."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.support.outcomes import random_mask
from tests.support.recipes import tiny
from tombola.engines import Engine
from tombola.engines.eager import Eager, ModuleLearner
from tombola.engines.sparse.engine import Sparse
from tombola.engines.stacked.engine import Stacked
from tombola.engines.stacked.ensemble import EnsembleLearner
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.pruning.mask import State
from tombola.runs.checkpoint import Checkpoint
from tombola.runs.initial_state import masked_network
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.zoo.batches import batches
from tombola.zoo.datasets import prepare

ENGINES: list[Callable[[], Engine[Run]]] = [Eager, Sparse, Stacked]
SGD = {"optimizer": "sgd", "lr": 0.05, "batch_size": 40, "length": "40it", "evaluate_every": "10it"}
"""A [training] section."""
STEP_SCHEDULE = SGD | {"schedule": "step", "milestones": ["15it", "30it"], "warmup": "5it"}


def dense_run(**changes: Any) -> Run:
    """The dense run of a tiny recipe; `section__key=value` changes it."""
    return RecipeExperiment(tiny(**changes)).dense(0)


def pruned_run(density: float = 0.5, **changes: Any) -> Run:
    run = dense_run(**changes)
    return run.masked(random_mask(run, density))


def no_checkpoint() -> Checkpoint:
    """One that is never due."""
    return Checkpoint(Path("nowhere"), every=math.inf)


def train_alone(run: Run, path: Path | None = None, engine: Callable[[], Engine[Run]] = Eager) -> Outcome:
    (outcome,) = engine().train([run], Checkpoint(path) if path else no_checkpoint())
    return outcome


def train_in_order(engine: Callable[[], Engine[Run]], *runs: Run) -> list[Outcome]:
    """Train one run after another; each may start from the weights of those before."""
    final: dict[str, State] = {}
    outcomes = []
    for run in runs:
        (outcome,) = engine().train([run], no_checkpoint(), final.__getitem__)
        final[run.key] = outcome.final
        outcomes.append(outcome)
    return outcomes


def same_state(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def same_bits(a: Outcome, b: Outcome) -> bool:
    return a.measures == b.measures and same_state(a.final, b.final) and same_state(a.curves, b.curves)


def assert_close(a: State, b: State, rtol: float = 2e-2, atol: float = 2e-4) -> None:
    """To the rounding of a few dozen iterations."""
    assert a.keys() == b.keys()
    for name in b:
        torch.testing.assert_close(a[name], b[name], rtol=rtol, atol=atol)


class Interrupted(Exception):
    pass


class InterruptingCheckpoint(Checkpoint):
    """Saves at every opportunity, and raises `Interrupted` after some saves."""

    def __init__(self, path: Path, saves: int = 3) -> None:
        super().__init__(path)
        self.saves = saves

    def due(self) -> bool:
        return True

    def save(self, tensors: Any, about: Any, engine: str) -> None:
        super().save(tensors, about, engine)
        self.saves -= 1
        if self.saves == 0:
            raise Interrupted


CPU = torch.device("cpu")


def variants(run: Run, count: int, density: float = 0.5) -> list[Run]:
    """Runs of one shape with different weights, masks, splits and batches. The first is dense."""
    runs = [run.reinitialised(seed).model_copy(update={"seed": seed // 2}) for seed in range(count)]
    runs = [r.model_copy(update={"data": r.data.model_copy(update={"seed": r.seed})}) for r in runs]
    return [runs[0], *(r.masked(random_mask(r, density, r.start.seed)) for r in runs[1:])]


def train_stacked(runs: Sequence[Run]) -> list[Outcome]:
    return Stacked().train(runs, no_checkpoint())


def ensemble_learner(runs: Sequence[Run], device: torch.device = CPU) -> EnsembleLearner:
    return EnsembleLearner([masked_network(run) for run in runs], runs, [prepare(run.data) for run in runs], device)


def module_learner(run: Run) -> ModuleLearner:
    return ModuleLearner(masked_network(run), run, prepare(run.data), CPU)


def batch_orders(runs: Sequence[Run], iterations: int, first: int = 0) -> Tensor:
    examples = len(prepare(runs[0].data).train)
    return torch.stack([batches(run.seed, examples, run.training.batch_size, first, iterations) for run in runs])
