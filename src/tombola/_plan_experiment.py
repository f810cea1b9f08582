"""plan_experiment: what a recipe's experiment will train, before it does."""

from __future__ import annotations

from pathlib import Path

from tombola.engines import check_engine, trains_in_threads
from tombola.engines import engine as named_engine
from tombola.engines.device_choice import choose_device
from tombola.experiments.part import Part
from tombola.experiments.planning.plan import Plan
from tombola.experiments.planning.planner import Planner
from tombola.experiments.recipe import Recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.runs.opening import open_store
from tombola.utils.gpus import count_sharing
from tombola.utils.workers import worker_count


def plan_experiment(
    recipe: Recipe,
    store: str | Path,
    *,
    engine: str = "auto",
    device: str = "auto",
    workers: int | None = None,
    part: str | None = None,
    data_dir: str | Path | None = None,
) -> Plan:
    """What `run_experiment` would train with these arguments, and the time, disk and memory that takes.

    The experiment's own studies are run: outcomes in `store` are used, others are made up, so that every training is
    counted. Times are those of trainings of the same kind in the store; where there are none, a few iterations are
    trained. Nothing is written. With a cluster, `workers` is the number of trainings that it runs at once.
    Raises `InputError` if the recipe or its data is invalid.
    """
    check_engine(engine, device)
    experiment = RecipeExperiment(recipe, data_dir)
    if part is not None:
        experiment = experiment.only(Part.parse(part))
    device = choose_device(device, engine, workers, experiment.demand)
    workers = worker_count(workers, device)
    chosen = named_engine(engine, data_dir, device, count_sharing(workers, device))
    threads = trains_in_threads(chosen, experiment.sample_runs, device)
    name = type(chosen).__name__.lower()
    return Planner(experiment, open_store(store), chosen, name, device, workers, threads, data_dir).plan()
