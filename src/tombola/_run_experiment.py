"""run_experiment: from a recipe to a results folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path

from tombola._perform import collector_of, perform
from tombola._trainers import check_trainers, trainers
from tombola.engines.distributed.job import once_in_job
from tombola.experiments.experiment import count_runs
from tombola.experiments.experiment_log import ExperimentLog
from tombola.experiments.growth import growth_of_folder
from tombola.experiments.part import Part
from tombola.experiments.recipe import Recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.report.printable_results import PrintableResults
from tombola.report.progress import announce, live_display
from tombola.runs.opening import open_store
from tombola.studies.conductor import Listener


@once_in_job
def run_experiment(
    recipe: Recipe,
    out: str | Path,
    *,
    store: str | Path | None = None,
    engine: str = "auto",
    device: str = "auto",
    workers: int | None = None,
    executor: Executor | None = None,
    cluster: str | None = None,
    resources: Mapping[str, float] | Sequence[str] = (),
    part: str | None = None,
    data_dir: str | Path | None = None,
    checkpoint_every: float = 30.0,
    progress: bool | None = None,
    listeners: Sequence[Listener] = (),
    command: str | None = None,
) -> PrintableResults:
    """Run or resume the experiment of `recipe`; the results are written to the folder `out`.

    Trained runs are kept in `store`, a folder (default: `.tombola` beside `out`) or a URL (docs/how-to/store.md),
    which experiments may share.
    `device` is `cpu`, `cuda` (all visible GPUs), `cuda:N` (one of them), or `auto`: CUDA where there is a GPU that is
    estimated to be faster, otherwise the CPU.
    `workers` runs are trained in parallel, by default one on each core, or on each GPU, in threads or processes, as
    the engine requires. Only the last bits and the dropout of stacked runs depend on this number.
    With an `executor`, its workers train instead, on any machine. They receive what they need, and a training that
    fails is tried three times. `device` is then the device of these workers (`auto`: the CPU), and `workers` the
    number of trainings submitted to the executor at once.
    `cluster` trains on a Ray cluster: `ray` starts one on this machine, `auto` uses the one that runs here, and
    `ray://HOST:PORT` another one. `resources` are the resources of one training on the cluster, by default
    `{"cpu": 1}`, and `{"gpu": 1}` on CUDA; `{"gpu": 0.25}` is a share of a GPU. With a cluster, the device `auto` is
    CUDA if the cluster has GPUs.
    If `torchrun` has started several processes, all of them make this call. The first one conducts the experiment,
    all train each run together, one after another, and all return the results (docs/how-to/several-devices.md).
    With a `part`, such as "2/8", only this part of the replicates is trained. Processes that share the store may
    train one part each; a later call without `part` then writes `out`. Returns the results of these replicates.

    After an interruption, call it again to resume: finished runs are in the store, and runs in training save a
    checkpoint every `checkpoint_every` seconds, or less often, so that this takes at most a twentieth of the time.
    `progress` is shown in a notebook, otherwise on standard error: a bar in a terminal, elsewhere one line per
    minute. It is not shown if False. `command` is recorded in the results.
    Raises `InputError` if the recipe, the data or a folder is invalid; `TrainingsFailed` if trainings in `executor`
    failed three times, once all others are finished.
    """
    check_trainers(engine, device, executor, cluster, resources, workers)
    own, out = None if part is None else Part.parse(part), Path(out)
    count = count_runs(recipe, own)
    folder = out if own is None else None
    with ExitStack() as stack:
        log = stack.enter_context(ExperimentLog())  # collects warnings from here on
        announce(listeners, "loading the data")
        experiment = RecipeExperiment(recipe, data_dir)
        if own is not None:
            experiment = experiment.only(own)
            growth_of_folder(out, recipe)  # raises now the errors of the later call without `part`
        runs = open_store(out.parent / ".tombola" if store is None else store, checkpoint_every)
        collector = collector_of(experiment, runs, command)
        announce(listeners, "starting the cluster" if cluster else "preparing the engine")
        chosen = stack.enter_context(
            trainers([experiment], engine, device, workers, executor, data_dir, cluster, resources)
        )
        display = stack.enter_context(live_display(collector, count, progress, folder))
        return perform(
            experiment,
            runs,
            chosen.engine,
            chosen.executor,
            collector,
            folder,
            [display, *listeners],
            chosen.workers,
            chosen.remote,
            log,
        )
