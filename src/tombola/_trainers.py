"""What trains the runs of recipes: an engine, and an executor with the workers that run it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tombola.engines import AUTO, Engine, check_engine, trains_in_threads
from tombola.engines import engine as named_engine
from tombola.engines.device_choice import choose_device
from tombola.engines.distributed.batch_share import check_batch
from tombola.engines.distributed.devices import use_device
from tombola.engines.distributed.engine import Distributed
from tombola.engines.distributed.job import conducted_job
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.integrations.ray_cluster import ray_cluster
from tombola.utils.errors import InputError
from tombola.utils.gpus import count_sharing, worker_gpus
from tombola.utils.workers import parallel_executor, worker_count


@dataclass(frozen=True)
class Trainers:
    """The arguments of `tombola.studies.conductor.conduct` that decide how runs are trained."""

    engine: Engine[Any]
    executor: Executor
    workers: int | None
    remote: bool


def check_trainers(
    engine: str,
    device: str,
    executor: Executor | None,
    cluster: str | None,
    resources: Mapping[str, float] | Sequence[str],
    workers: int | None = None,
) -> None:
    """Raises `InputError` for arguments that `trainers` would refuse, as far as this is known in advance."""
    if cluster is None and resources:
        raise InputError("resources: are for trainings on a cluster; give cluster, too")
    if cluster is not None and executor is not None:
        raise InputError("executor, cluster: give one of them")
    check_engine(engine, device, here=executor is None and cluster is None)
    worker_count(workers)
    if conducted_job() is not None:
        _check_in_job(engine, device, executor, cluster, workers)


def _check_in_job(
    engine: str, device: str, executor: Executor | None, cluster: str | None, workers: int | None
) -> None:
    """Raises `InputError` for arguments that contradict that every run is trained by all processes of a job."""
    if cluster is not None or executor is not None:
        raise InputError("cluster, executor: under torchrun all its processes train every run; leave them out")
    if workers not in (None, 1):
        raise InputError(f"workers: should be 1, not {workers}: under torchrun all its processes train every run")
    if engine not in (AUTO, "eager"):
        raise InputError(f'engine: under torchrun runs are trained as "eager" does, not "{engine}"; leave it out')
    if device not in (AUTO, "cpu", "cuda"):
        raise InputError(f'device: should be "cuda", not "{device}", under torchrun: each process uses its own GPU')


@contextmanager
def trainers(
    experiments: Sequence[RecipeExperiment],
    engine: str,
    device: str,
    workers: int | None,
    executor: Executor | None,
    data_dir: str | Path | None,
    cluster: str | None = None,
    resources: Mapping[str, float] | Sequence[str] = (),
) -> Iterator[Trainers]:
    """Make the engine and executor that `run_experiment` describes, for this block. The device is chosen for the
    first of `experiments`. If this process conducts a job, all its processes train each run."""
    if cluster is not None:
        with ray_cluster(cluster, resources, device, engine) as on_ray:
            yield _elsewhere(on_ray, engine, on_ray.device, workers, data_dir)
        return
    if executor is not None:
        yield _elsewhere(executor, engine, device, workers, data_dir)
        return
    if (job := conducted_job()) is not None:
        for run in (run for each in experiments for run in each.sample_runs):
            check_batch(run, job.size)
        use_device(job, choose_device(device, "eager", 1, experiments[0].demand))
        with parallel_executor(1) as here:
            yield Trainers(Distributed(data_dir), here, 1, remote=False)
        return
    device = choose_device(device, engine, workers, experiments[0].demand)
    workers = worker_count(workers, device)
    chosen = named_engine(engine, data_dir, device, count_sharing(workers, device))

    def threads() -> bool:
        return trains_in_threads(chosen, [run for each in experiments for run in each.sample_runs], device)

    with parallel_executor(workers, threads, worker_gpus(device)) as local:
        yield Trainers(chosen, local, workers, remote=False)


def _elsewhere(
    executor: Executor, engine: str, device: str, workers: int | None, data_dir: str | Path | None
) -> Trainers:
    if data_dir is not None:
        data_dir = Path(data_dir).absolute()  # workers have another working directory
    chosen = named_engine(engine, data_dir, device, sharing=getattr(executor, "sharing", 1), here=False)
    return Trainers(chosen, executor, workers, remote=True)
