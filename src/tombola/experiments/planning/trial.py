"""Trial: the speed of an experiment's trainings, measured by a few iterations of some of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median_low

import torch

from tombola.engines import Engine
from tombola.engines.short_training import time_short_training
from tombola.experiments.planning.run_costs import Load, RunCosts
from tombola.pruning.mask import Mask
from tombola.pruning.random_mask import random_mask
from tombola.pruning.scopes import Counts
from tombola.runs.run import Run

BUDGET = 6.0
"""Seconds of training after which nothing else is measured."""


def measure(
    costs: RunCosts,
    examples: Mapping[Load, Run],
    engine: Engine[Run],
    data_dir: str | Path | None,
    at_once: int = 1,
    budget: float = BUDGET,
) -> None:
    """Add to `costs` the speed of all kinds of training among `examples`, dense and at two lower densities, as far as
    the budget, in seconds, allows. `at_once` runs may be trained as one, if the engine does so.

    Raises whatever the engine raises.
    """
    spent = 0.0
    by_kind: dict[object, list[Load]] = {}
    for load in examples:
        by_kind.setdefault(load.kind, []).append(load)
    # The kind that takes longest first.
    for loads in sorted(by_kind.values(), key=lambda loads: -sum(load.work for load in loads)):
        for density in _densities(load.density for load in loads):
            if costs.knows(loads[0].kind, density):
                continue
            if costs.knows(loads[0].kind) and spent > budget:
                break
            run = _at_density(examples[loads[0]], density)
            runs = [run.reinitialised(seed) for seed in range(min(at_once, engine.capacity(run).max_runs))]
            measured = time_short_training(engine, runs)
            costs.add(Load.of_part(run, measured, data_dir), measured.seconds)
            spent += measured.seconds_from_start * len(runs)


def _densities(of: Iterable[float]) -> list[float]:
    """The highest, the lowest and the median."""
    found = sorted(of)
    return list(dict.fromkeys((found[-1], found[0], median_low(found))))


def _at_density(run: Run, density: float) -> Run:
    """A whole training like `run`, from new initial weights, with a random mask of this density."""
    dense = Mask({name: torch.ones(kept.shape, dtype=torch.bool) for name, kept in run.mask.items()})
    counts: Counts = {(layer,): round(density * size) for layer, size in dense.sizes.items()}
    start = run.start.model_copy(update={"trained": None, "reuse": None, "signs": None})
    changed = {"start": start, "mask": random_mask(dense, dense, counts, 0), "begin": 0, "end": None}
    return run.model_copy(update=changed | {"keeps_optimizer": False})
