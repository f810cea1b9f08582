"""sweep: the experiments of several recipes, run at the same time with one store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path

from tombola._perform import Performance, collector_of, perform_all
from tombola._trainers import check_trainers, trainers
from tombola.engines.distributed.job import once_in_job
from tombola.experiments.experiment_log import ExperimentLog
from tombola.experiments.growth import growth_of_folder
from tombola.experiments.recipe import Recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.report.printable_results import PrintableResults
from tombola.report.progress import announce
from tombola.runs.opening import open_store
from tombola.studies.conductor import Listener
from tombola.utils.errors import InputError


@once_in_job
def sweep(
    recipes: Mapping[Path, Recipe],
    store: str | Path,
    *,
    engine: str = "auto",
    device: str = "auto",
    workers: int | None = None,
    executor: Executor | None = None,
    cluster: str | None = None,
    resources: Mapping[str, float] | Sequence[str] = (),
    data_dir: str | Path | None = None,
    checkpoint_every: float = 30.0,
    listeners: Sequence[Listener] = (),
    commands: Mapping[Path, str] | None = None,
) -> list[PrintableResults]:
    """Run or resume the experiments of several recipes, each in its results folder. `listeners` are notified of the
    runs of all experiments; they see studies numbered across the replicates of all experiments. For the other
    arguments see `run_experiment`.

    Raises `InputError`, which names the folder, if any of the recipes is invalid, before anything is trained.
    """
    check_trainers(engine, device, executor, cluster, resources, workers)
    with ExitStack() as stack:
        logs = {out: stack.enter_context(ExperimentLog()) for out in recipes}
        announce(listeners, "loading the data")
        experiments = {out: _checked(out, recipe, data_dir) for out, recipe in recipes.items()}
        runs = open_store(store, checkpoint_every)
        known, count = commands or {}, len(experiments)
        performances = [
            Performance(experiment, collector_of(experiment, runs, known.get(out), among=count), out, log=logs[out])
            for out, experiment in experiments.items()
        ]
        announce(listeners, "starting the cluster" if cluster else "preparing the engine")
        chosen = stack.enter_context(
            trainers([*experiments.values()], engine, device, workers, executor, data_dir, cluster, resources)
        )
        return perform_all(
            performances, runs, chosen.engine, chosen.executor, chosen.workers, chosen.remote, listeners
        )


def _checked(out: Path, recipe: Recipe, data_dir: str | Path | None) -> RecipeExperiment:
    try:
        growth_of_folder(out, recipe)
        return RecipeExperiment(recipe, data_dir)
    except InputError as error:
        raise InputError(str(error) if str(out) in str(error) else f"{out}: {error}") from None
