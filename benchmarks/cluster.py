"""Trainings on a Ray cluster of this machine, compared with local workers on the same cores.

    python -m benchmarks.cluster

Both sides train the same experiment: the recipe `digits` with as many replicates as it takes. Their tables must be
equal. Each turn starts a cluster, whose workers import PyTorch while they are timed; its start is also timed apart.
"""

from __future__ import annotations

import math
import tempfile
import time
from concurrent.futures import Executor
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.common import console, machine, median, take_turns, write
from tombola._run_experiment import run_experiment
from tombola.experiments.experiment import count_runs
from tombola.experiments.recipe import Recipe, load_recipe
from tombola.integrations.ray_cluster import ray_cluster
from tombola.utils.workers import cores

WANTED = 1.5
"""The ratio of the times, at most."""


def recipe_of(runs: int) -> Recipe:
    """The recipe `digits` with at least so many runs."""
    one = count_runs(load_recipe("digits", ["replicates=1"]))
    return load_recipe("digits", [f"replicates={math.ceil(runs / one)}"])


def files(folder: Path) -> dict[str, bytes]:
    """The tables."""
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


def main(
    runs: Annotated[int, typer.Option(help="Trainings, at least.")] = 300,
    turns: Annotated[int, typer.Option(help="Turns of each side.")] = 2,
    save: Annotated[bool, typer.Option(help="Write results/cluster.json.")] = True,
) -> None:
    """Measure, compare the files, print the ratio, write results/cluster.json."""
    recipe, tables, starts = recipe_of(runs), dict[str, dict[str, bytes]](), list[float]()

    def train(name: str, executor: Executor | None = None) -> None:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            run_experiment(recipe, out, device="cpu", executor=executor, progress=False)
            tables[name] = files(out)

    def train_on_ray() -> None:
        began = time.perf_counter()
        with ray_cluster("ray", device="cpu") as executor:
            starts.append(time.perf_counter() - began)
            train("Ray", executor)

    train("local workers")  # compiles the kernels
    sides = {"local workers": lambda: train("local workers"), "Ray": train_on_ray}
    seconds = {name: median(times) for name, times in take_turns(sides, turns, warm_up=False).items()}
    start = median(starts)
    if tables["Ray"] != tables["local workers"]:
        raise SystemExit("the sides disagree: their tables differ")
    with_start = seconds["Ray"] / seconds["local workers"]
    ratio = (seconds["Ray"] - start) / seconds["local workers"]
    table = Table("side", "seconds")
    for name, each in seconds.items():
        table.add_row(name, f"{each:.1f}")
    console.print(f"{count_runs(recipe)} trainings of digits on {cores()} cores, all tables equal:")
    console.print(table)
    console.print(
        f"Ray takes {ratio:.2f} times as long, {with_start:.2f} times with the {start:.1f} s until it has started; "
        f"at most {WANTED} is wanted."
    )
    console.print(machine())
    if save:
        result = {
            "runs": count_runs(recipe),
            "seconds": seconds,
            "start": start,
            "ratio": ratio,
            "with start": with_start,
        }
        console.print(f"Written to {write('cluster', result)}.")


if __name__ == "__main__":
    typer.run(main)
