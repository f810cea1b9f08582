"""Replicate-steps per second by the size of a stack, compared with training one by one on the same device.

    python -m benchmarks.gpu

LeNet-300-100 on MNIST, batches of 60, Adam, masks with 13.4% of the weights. Both sides train the same number of
steps of the same runs; n steps of a stack of R runs are R·n replicate-steps.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table

from benchmarks.common import ContinuedTraining, check_first_losses, console, machine, median, take_turns, write
from benchmarks.step import FIRST_STEPS, masks
from tombola.engines.determinism import reproducible
from tombola.engines.eager import ModuleLearner
from tombola.engines.stacked.ensemble import EnsembleLearner
from tombola.engines.training_loop import Learner
from tombola.experiments.recipe import load_recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.runs.initial_state import masked_network
from tombola.runs.run import Run
from tombola.zoo.batches import batches
from tombola.zoo.datasets import prepare


def runs_of(run: Run, count: int) -> list[Run]:
    return [run.reinitialised(seed).model_copy(update={"seed": seed}) for seed in range(count)]


def learner_of(runs: list[Run], device: torch.device, stacked: bool, data_dir: Path | None) -> Learner:
    networks = [masked_network(run) for run in runs]
    splits = [prepare(run.data, data_dir) for run in runs]
    if stacked:
        return EnsembleLearner(networks, runs, splits, device)
    return ModuleLearner(networks[0].to(device), runs[0], splits[0], device)


def training_of(learner: Learner, runs: list[Run], examples: int, steps: int) -> ContinuedTraining:
    orders = [batches(run.seed, examples, run.training.batch_size, 0, steps) for run in runs]
    return ContinuedTraining(learner, torch.stack(orders))


def timed(training: ContinuedTraining, wait: Callable[[], None]) -> Callable[[], None]:
    """Train one turn, and wait for the device."""

    def call() -> None:
        training()
        wait()

    return call


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cuda" if torch.cuda.is_available() else "cpu",
    sizes: Annotated[list[int] | None, typer.Option(help="Sizes of stacks.")] = None,
    steps: Annotated[int, typer.Option(help="Steps of a turn.")] = 100,
    turns: Annotated[int, typer.Option(help="Turns of each side.")] = 5,
    data: Annotated[str, typer.Option(help="Data set.")] = "mnist",
    data_dir: Annotated[Path | None, typer.Option(help="Folder to look for data in.")] = None,
    save: Annotated[bool, typer.Option(help="Write results/gpu.json.")] = True,
) -> None:
    """Compare losses, measure, print ratios, write results/gpu.json."""
    recipe = load_recipe("lenet-mnist", [f"data.name={data}", "data.validation=500"])
    dense = RecipeExperiment(recipe, data_dir).dense(0)
    run = dense.masked(masks(recipe, dense, 9)[-1])
    examples = len(prepare(run.data, data_dir).train)
    place = torch.device(device)
    wait = torch.cuda.synchronize if place.type == "cuda" else (lambda: None)
    rows = []
    with reproducible(0, place):
        for size in sizes or [1, 4, 16, 64, 256, 1024]:
            runs = runs_of(run, size)
            trainings = {
                "one by one": training_of(learner_of(runs[:1], place, False, data_dir), runs[:1], examples, steps),
                "stacked": training_of(learner_of(runs, place, True, data_dir), runs, examples, steps),
            }
            for training in trainings.values():
                training(FIRST_STEPS)
            check_first_losses({name: training.learner.take_losses()[0] for name, training in trainings.items()})
            sides = {name: timed(training, wait) for name, training in trainings.items()}
            seconds = {name: median(times) for name, times in take_turns(sides, turns).items()}
            one_by_one, stacked = steps / seconds["one by one"], size * steps / seconds["stacked"]
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
