"""The driver of an experiment alone: what a run costs it, and how many workers it can keep busy.

    python -m benchmarks.driver

The driver is the process that conducts the studies and keeps the store. Its conductor, tasks, claims and store are
the real ones. Workers are simulated (see `simulated_workers`).
"""

from __future__ import annotations

import pickle
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from benchmarks.common import console, machine, median, take_turns, write
from benchmarks.simulated_workers import SimulatedWorkers
from tombola._perform import collector_of
from tombola.engines.training_loop import Capacity
from tombola.experiments.recipe import load_recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.pruning.mask import Mask, State
from tombola.runs.outcome import Measures, Outcome
from tombola.runs.run import BaseRun, Run
from tombola.runs.store import Store
from tombola.studies.conductor import Conductor, ListenerGroup
from tombola.studies.remote_training import RemoteTraining
from tombola.studies.request import RunRequest
from tombola.zoo.models import build

DENSITY = 0.1
"""Of the masks."""

LENGTH = 400
"""Iterations of the trainings that are never trained."""


@dataclass(frozen=True)
class MemoryStore(Store):
    """Remembers the outcomes in memory: the time of the disk is left out."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def get(self, run: BaseRun, fresh: bool = False) -> Outcome | None:  # noqa: ARG002 - it is always fresh
        return self.outcomes.get(run.key)

    def put(self, run: BaseRun, outcome: Outcome) -> None:
        self.outcomes[run.key] = outcome

    def load_state(self, key: str, /, *, optimizer: bool = False) -> State:
        return self.outcomes[key].optimizer if optimizer else self.outcomes[key].final

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.folder, self.checkpoint_every)  # what is sent to workers


class NoEngine:
    """Trains nothing."""

    device = "cpu"

    def capacity(self, run: Run) -> Capacity:  # noqa: ARG002
        return Capacity()


def template() -> Run:
    """A training of LeNet-300-100 on images of 28x28 pixels: 266,200 weights, a tenth of them left."""
    dense = RecipeExperiment(load_recipe("digits")).dense(0)
    network = dense.start.network.model_copy(update={"inputs": (28, 28)})
    dense = dense.model_copy(update={"start": dense.start.model_copy(update={"network": network})})
    generator = torch.Generator().manual_seed(0)
    full = Mask.full(build(dense.start))
    return dense.masked(
        Mask({name: torch.rand(kept.shape, generator=generator) < DENSITY for name, kept in full.items()})
    )


def outcome_of(run: Run) -> Outcome:
    """What a training of `run` would return, at the end of which its weights are the initial ones."""
    final = {n: t * run.mask[n] if n in run.mask else t for n, t in build(run.start).state_dict().items()}
    curves = {"iteration": torch.arange(20) * 20 + 20}
    for name in ("train_loss", "validation_loss", "validation_accuracy"):
        curves[name] = torch.linspace(1, 0.1, 20, dtype=torch.float64)
    names = [f"{figure}_at_stop" for figure in ("validation_loss", "validation_accuracy", "train_accuracy")]
    figures: dict[str, Any] = dict.fromkeys([*names, "test_accuracy_at_stop", "train_accuracy", "test_accuracy"], 0.9)
    measures = Measures(diverged=False, iterations=LENGTH, stop_iteration=LENGTH // 2, **figures)
    return Outcome(final, curves, measures, "none", 1.0)


def conduct(runs: Sequence[Run], store: Store, workers: SimulatedWorkers) -> None:
    """Have `runs`, the requests of one study, trained by simulated workers."""

    def study() -> Any:
        yield [RunRequest("ticket", 0, run, draw) for draw, run in enumerate(runs)]

    training = RemoteTraining(store, NoEngine(), workers)
    conductor = Conductor([study()], store, training, ListenerGroup([]))
    conductor.ended = workers  # type: ignore[assignment]
    conductor.conduct()
    training.close()


def peak_memory() -> float:
    """Of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def measure_queue(count: int, folder: Path) -> dict[str, float]:
    """Processor time and memory of a queue of runs of no iterations, from the first request to the last answer."""
    run, store = template(), MemoryStore(folder)
    store.check_writable()
    ends = [run.reinitialised(seed) for seed in (1, 2)]
    for end in ends:
        store.put(end, outcome_of(end))
    points = [run.between(*ends, (index + 1) / (count + 1), LENGTH) for index in range(count)]
    outcome = replace(outcome_of(run), final={})
    workers = SimulatedWorkers(1000, 60.0, lambda run: outcome)  # noqa: ARG005
    before, began = peak_memory(), time.process_time()
    conduct(points, store, workers)
    seconds = time.process_time() - began - workers.own_seconds
    return {"runs": count, "seconds": seconds, "megabytes": peak_memory(), "megabytes before": before}


def measure_parts(folder: Path, calls: int) -> dict[str, float]:
    """Milliseconds of each thing that the driver does for a run, on a real store."""
    run, store = template(), Store(folder)
    store.check_writable()
    outcome, training = (
        outcome_of(run),
        RemoteTraining(Store(folder), NoEngine(), SimulatedWorkers(1, 1.0, outcome_of)),
    )
    runs = iter([run.reinitialised(seed) for seed in range(10 * calls)])
    claim = store.claims()
    claim.try_add([f"{number:032x}" for number in range(1250)])
    collector = collector_of(RecipeExperiment(load_recipe("digits")), store)
    stored = run.reinitialised(0)
    store.put(stored, outcome)

    def claimed() -> None:
        claim.try_add([run.key])
        claim.remove([run.key])

    parts: dict[str, Callable[[], Any]] = {
        "describing and hashing the run": lambda: next(runs).key,
        "claiming it and giving it back": claimed,
        "making and pickling its task": lambda: pickle.dumps(training._task([run])),
        "storing its outcome": lambda: store.put(next(runs), outcome),
        "reading it again": lambda: store.get(stored),
        "its rows of the tables": lambda: collector.answered(0, RunRequest("reinit", 1, stored, 0), outcome, True),
    }

    def repeated(call: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: [call() for _ in range(calls)]

    seconds = take_turns({name: repeated(call) for name, call in parts.items()}, 3)
    training.close()
    claim.release()
    return {name: 1000 * median(times) / calls for name, times in seconds.items()}


def measure_use(workers: int, count: int, seconds: float, storing: float, folder: Path) -> dict[str, float]:
    """The share of their time that workers train, if each run takes `seconds`, and the disk `storing` seconds."""
    run, store = template(), MemoryStore(folder)
    store.check_writable()
    outcome = outcome_of(run)
    simulated = SimulatedWorkers(workers, seconds, lambda run: outcome, storing)  # noqa: ARG005
    conduct([run.reinitialised(seed) for seed in range(count)], store, simulated)
    ideal = seconds * -(-count // workers)
    result = {"workers": workers, "runs": count, "seconds": seconds, "hours": simulated.now / 3600}
    return result | {"use": simulated.busy / workers / simulated.now, "of ideal": ideal / simulated.now}


def main(
    queued: Annotated[int, typer.Option(help="Runs of no iterations that are queued.")] = 10_000,
    workers: Annotated[int, typer.Option(help="Simulated workers.")] = 1000,
    runs: Annotated[int, typer.Option(help="Runs that they train.")] = 100_000,
    durations: Annotated[list[float], typer.Option(help="Seconds that a run takes them.")] = [5.0, 20.0, 60.0],  # noqa: B006
    calls: Annotated[int, typer.Option(help="Calls of each part in a turn.")] = 100,
    save: Annotated[bool, typer.Option(help="Write results/driver.json.")] = True,
) -> None:
    """Measure, print, write results/driver.json."""
    with tempfile.TemporaryDirectory() as folder:
        places = (Path(folder) / str(number) for number in range(100))
        queue = measure_queue(queued, next(places))
        parts = measure_parts(next(places), calls)
        storing = (parts["storing its outcome"] + parts["reading it again"] + parts["its rows of the tables"]) / 1000
        uses = [measure_use(workers, runs, seconds, storing, next(places)) for seconds in durations]
    console.print(
        f"{queued:,} queued runs of no iterations: {queue['seconds']:.1f} s of processor time, "
        f"{queue['megabytes']:.0f} MB at most, {queue['megabytes before']:.0f} MB of them before."
    )
    table = Table("for each run of LeNet-300-100", "ms")
    for name, milliseconds in parts.items():
        table.add_row(name, f"{milliseconds:.2f}")
    table.add_row("all", f"{sum(parts.values()):.2f}")
    console.print(table)
    table = Table("workers", "runs", "seconds of a run", "hours", "workers' time used")
    for use in uses:
        figures = f"{use['seconds']:g}", f"{use['hours']:.2f}", f"{use['use']:.0%}"
        table.add_row(f"{workers:,}", f"{runs:,}", *figures)
    console.print(table)
    console.print(machine())
    if save:
        console.print(f"Written to {write('driver', {'queue': queue, 'milliseconds': parts, 'use': uses})}.")


if __name__ == "__main__":
    typer.run(main)
