"""Who trains the runs of recipes: an engine, and the executor whose workers it runs in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tombola.engines import Engine, trains_in_threads
from tombola.engines import engine as named_engine
from tombola.engines.device_choice import choose_device
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.utils.gpus import count_sharing, worker_gpus
from tombola.utils.workers import parallel_executor, worker_count


@dataclass(frozen=True)
class Trainers:
    """What `conduct` needs to have runs trained; see there."""

    engine: Engine[Any]
    executor: Executor
    workers: int | None
    remote: bool


@contextmanager
def trainers(
    experiments: Sequence[RecipeExperiment],
    engine: str,
    device: str,
    workers: int | None,
    executor: Executor | None,
    data_dir: str | Path | None,
) -> Iterator[Trainers]:
    """Those that `run_experiment` describes, in this block. The device is chosen by the first of `experiments`."""
    if executor is not None:
        chosen = named_engine(engine, data_dir, device, sharing=getattr(executor, "sharing", 1), here=False)
        yield Trainers(chosen, executor, workers, remote=True)
        return
    device = choose_device(device, engine, workers, experiments[0].demand)
    workers = worker_count(workers, device)
    chosen = named_engine(engine, data_dir, device, count_sharing(workers, device))
    runs = [run for experiment in experiments for run in experiment.sample_runs]
    threads = trains_in_threads(chosen, runs, device)
    with parallel_executor(workers, threads, worker_gpus(device)) as local:
        yield Trainers(chosen, local, workers, remote=False)
