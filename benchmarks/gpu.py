"""Replicate-steps per second against the size of a stack, beside training one by one on the same device.

    python -m benchmarks.gpu

LeNet-300-100 on MNIST, batches of 60, Adam, masks at 13.4% of the weights. Each side trains the same number of steps
of the same runs; a stack of R runs for n steps is R·n replicate-steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table

from benchmarks.common import console, machine, median, write
from benchmarks.step import masks
from tombola.batches import batches
from tombola.engines.eager import reproducible
from tombola.engines.ensemble import EnsembleLearner
from tombola.engines.modules import ModuleLearner
from tombola.engines.training import Learner
from tombola.experiment import Experiment
from tombola.recipe import load_recipe
from tombola.run import Run
from tombola.zoo.data import prepare
from tombola.zoo.networks import build


def runs_of(run: Run, count: int) -> list[Run]:
    return [run.reinitialised(seed).model_copy(update={"seed": seed}) for seed in range(count)]


def learner_of(runs: list[Run], device: torch.device, stacked: bool, data_dir: Path | None) -> Learner:
    networks = [build(run.start) for run in runs]
    for run, network in zip(runs, networks, strict=True):
        run.mask.apply_(network)
    splits = [prepare(run.data, data_dir) for run in runs]
    if stacked:
        return EnsembleLearner(networks, [run.mask for run in runs], runs[0].training, splits, device)
    return ModuleLearner(networks[0].to(device), runs[0].mask, runs[0].training, splits[0], device)


def per_second(
    learner: Learner, runs: list[Run], examples: int, steps: int, turns: int, wait: Callable[[], None]
) -> float:
    """Replicate-steps per second; the median of several turns, after one that does not count."""
    orders = torch.stack([batches(run.seed, examples, run.training.batch_size, 0, steps) for run in runs])
    seconds = []
    for _ in range(turns + 1):
        wait()
        began = time.perf_counter()
        learner.train(orders)
        wait()
        seconds.append(time.perf_counter() - began)
    return len(runs) * steps / median(seconds[1:])


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cuda" if torch.cuda.is_available() else "cpu",
    sizes: Annotated[list[int] | None, typer.Option(help="Sizes of stacks.")] = None,
    steps: Annotated[int, typer.Option(help="Steps of a turn.")] = 100,
    turns: Annotated[int, typer.Option(help="Turns of each side.")] = 5,
    data: Annotated[str, typer.Option(help="Data set.")] = "mnist",
    data_dir: Annotated[Path | None, typer.Option(help="Folder to look for data in.")] = None,
    save: Annotated[bool, typer.Option(help="Write results/gpu.json.")] = True,
) -> None:
    """Measure, compare losses, print ratios, write results/gpu.json."""
    recipe = load_recipe("lenet-mnist", [f"data.name={data}", "data.validation=500"])
    dense = Experiment(recipe, data_dir).dense(0)
    run = dense.masked(masks(recipe, dense, 9)[-1])
    examples = len(prepare(run.data, data_dir).train)
    place = torch.device(device)
    wait = torch.cuda.synchronize if place.type == "cuda" else (lambda: None)
    rows = []
    with reproducible(0, place):
        for size in sizes or [1, 4, 16, 64, 256, 1024]:
            runs = runs_of(run, size)
            alone = learner_of(runs[:1], place, False, data_dir)
            together = learner_of(runs, place, True, data_dir)
            arguments = (examples, steps, turns, wait)
            one_by_one = per_second(alone, runs[:1], *arguments)  # beside it, each time: neither is favoured
            stacked = per_second(together, runs, *arguments)
            expected, got = alone.take_losses()[0], together.take_losses()[0]
            if abs(got - expected) > 0.02 * expected:
                raise SystemExit(f"the sides disagree: summed losses {expected} and {got}")
            rows.append({"size": size, "stacked": stacked, "one_by_one": one_by_one, "ratio": stacked / one_by_one})
    table = Table("runs", "stacked, per second", "one by one", "ratio")
    for row in rows:
        table.add_row(str(row["size"]), f"{row['stacked']:,.0f}", f"{row['one_by_one']:,.0f}", f"{row['ratio']:.1f}")
    console.print(f"Replicate-steps on {device}:")
    console.print(table)
    console.print(machine())
    if save:
        console.print(f"Written to {write('gpu' if place.type == 'cuda' else 'stacked-cpu', {'rows': rows})}.")


if __name__ == "__main__":
    typer.run(main)
