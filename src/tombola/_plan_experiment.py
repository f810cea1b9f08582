"""plan_experiment: estimates what a recipe's experiment will train, before it is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tombola._trainers import check_trainers
from tombola.engines import engine as named_engine
from tombola.engines import trains_in_threads
from tombola.engines.device_choice import choose_device
from tombola.experiments.part import Part
from tombola.experiments.planning.plan import Plan
from tombola.experiments.planning.planner import Planner
from tombola.experiments.recipe import Recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.integrations.ray_cluster import ray_cluster
from tombola.runs.opening import open_store
from tombola.utils.errors import InputError
from tombola.utils.gpus import count_sharing
from tombola.utils.launcher import launched_processes
from tombola.utils.workers import worker_count


def plan_experiment(
    recipe: Recipe,
    store: str | Path,
    *,
    engine: str = "auto",
    device: str = "auto",
    workers: int | None = None,
    cluster: str | None = None,
    resources: Mapping[str, float] | Sequence[str] = (),
    part: str | None = None,
    data_dir: str | Path | None = None,
) -> Plan:
    """What `run_experiment` would train with these arguments, and how much time, disk and memory this takes.

    The experiment's own studies are run: outcomes in `store` are used, others are made up, so that every training is
    counted. Times come from trainings of the same kind in the store. If there are none, a few iterations are trained
    on this machine, except for GPUs of a cluster. Nothing is written.
    Raises `InputError` if the recipe or its data is invalid, and in the cases in which `run_experiment` does.
    """
    check_trainers(engine, device, None, cluster, resources, workers)
    if launched_processes() > 1:
        raise InputError("a plan is for trainings on one device each: start it without torchrun")
    experiment = RecipeExperiment(recipe, data_dir)
    if part is not None:
        experiment = experiment.only(Part.parse(part))
    trial, threads = True, False
    if cluster is not None:
        with ray_cluster(cluster, resources, device, engine) as executor:
            device, workers = executor.device, workers or executor.slots()
            chosen = named_engine(engine, data_dir, device, executor.sharing, here=False)
            trial = device == "cpu"
    else:
        device = choose_device(device, engine, workers, experiment.demand)
        workers = worker_count(workers, device)
        chosen = named_engine(engine, data_dir, device, count_sharing(workers, device))
        threads = trains_in_threads(chosen, experiment.sample_runs, device)
    name = type(chosen).__name__.lower()
    planner = Planner(experiment, open_store(store), chosen, name, device, max(1, workers), threads, data_dir, trial)
    return planner.plan()
