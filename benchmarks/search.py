"""A whole search, compared with hand-written loops: LeNet-300-100 on MNIST with the paper's settings, 22 levels.

    python -m benchmarks.search

All sides search from the same initial weights, on the same splits and batches, with the same evaluations (validation
every 100 iterations; training and test examples at the end, with the last and the best weights). Their losses in the
first steps and their accuracies must agree. tombola's side is the whole program: `tombola.run_experiment` with its
store and tables. The hand-written loops use torch's default number of threads, and train one replicate at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.common import FIRST_STEPS, Loop, check_first_losses, console, machine, median, take_turns, write
from benchmarks.step import sparse_learner
from tombola._run_experiment import run_experiment
from tombola.experiments.recipe import Recipe, load_recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.pruning.mask import Mask
from tombola.utils.workers import cores
from tombola.zoo.batches import batches
from tombola.zoo.datasets import prepare
from tombola.zoo.datasets.split import ExampleSet
from tombola.zoo.models import build

SHORT = 11
"""Levels of a shorter search, to measure what deeper levels cost."""


@torch.no_grad()
def score(network: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Loss and accuracy."""
    logits = torch.cat([network(part) for part in torch.split(x, 5000)])
    return functional.cross_entropy(logits, y).item(), (logits.argmax(1) == y).float().mean().item()


def prune_by_magnitude(weights: dict[str, Tensor], mask: Mask, recipe: Recipe) -> Mask:
    """As in most scripts: sort the kept weights of each layer, and prune the smallest."""
    kept = {}
    for name, old in mask.items():
        rate = recipe.search.output_rate if name.startswith("output") else recipe.search.rate
        left = weights[name].abs()[old]
        cut = round((rate or recipe.search.rate) * len(left))
        threshold = left.sort().values[cut]
        kept[name] = old & (weights[name].abs() >= threshold)
    return Mask(kept)


def whole(examples: ExampleSet) -> tuple[Tensor, Tensor]:
    return examples[torch.arange(len(examples))]


def search_by_hand(recipe: Recipe, data_dir: Path | None, fused: bool) -> list[list[float]]:
    """Test accuracy at early stop, by replicate and level."""
    experiment, table = RecipeExperiment(recipe, data_dir), []
    for replicate in range(recipe.replicates):
        run = experiment.dense(replicate)
        split = prepare(run.data, data_dir)
        (x, y), (x_valid, y_valid), (x_test, y_test) = map(whole, (split.train, split.validation, split.test))
        options, mask, accuracies = run.training, run.mask, []
        length, every = options.length.iterations, options.evaluate_every.iterations
        for _ in range(recipe.search.levels + 1):
            network = build(run.start)
            order = batches(run.seed, len(x), options.batch_size, 0, length)
            best, lowest = network.state_dict(), float("inf")
            loop = Loop(network, mask, options.lr, fused)
            for begin in range(0, length, every):
                loop.train(x, y, order[begin : begin + every])
                loss, _ = score(network, x_valid, y_valid)
                if loss < lowest:
                    lowest, best = loss, {name: t.clone() for name, t in network.state_dict().items()}
            last = {name: t.clone() for name, t in network.state_dict().items()}
            score(network, x, y), score(network, x_test, y_test)
            network.load_state_dict(best)
            score(network, x, y)
            accuracies.append(score(network, x_test, y_test)[1])
            mask = prune_by_magnitude(last, mask, recipe)
        table.append(accuracies)
    return table


def search_by_tombola(recipe: Recipe, data_dir: Path | None) -> list[list[float]]:
    """The same table; each time in a new folder, so that nothing comes from the store."""
    with tempfile.TemporaryDirectory() as folder:
        results = run_experiment(recipe, Path(folder) / "out", data_dir=data_dir, workers=cores())
    rows = sorted((row.replicate, row.level, row.measures["test_accuracy_at_stop"]) for row in results.rows)
    return [[a or 0.0 for r, _, a in rows if r == replicate] for replicate in range(recipe.replicates)]


def main(
    iterations: Annotated[int, typer.Option(help="Of each training; the paper has 50,000.")] = 1000,
    replicates: Annotated[int, typer.Option(help="Searches.")] = 2,
    levels: Annotated[int, typer.Option(help="Prunings.")] = 21,
    turns: Annotated[int, typer.Option(help="Turns of each side.")] = 3,
    data: Annotated[str, typer.Option(help="Data set.")] = "mnist",
    data_dir: Annotated[Path | None, typer.Option(help="Folder to look for data in.")] = None,
    save: Annotated[bool, typer.Option(help="Write results/search.json.")] = True,
) -> None:
    """Compare losses, measure, compare accuracies, print ratios, write results/search.json."""
    recipe = load_recipe(
        "lenet-mnist",
        [
            f"data.name={data}",
            f"training.length={iterations}it",
            f"replicates={replicates}",
            f"search.levels={levels}",
            "controls=",
            *(["data.validation=300", "training.evaluate_every=20it"] if data == "digits" else []),
        ],
    )
    shallow = recipe.model_copy(update={"search": recipe.search.model_copy(update={"levels": min(SHORT, levels)})})
    search_by_tombola(shallow, data_dir)  # compiles the kernels and reads the data before the timing
    compare_first_losses(recipe, data_dir)
    tables: dict[str, list[list[float]]] = {}

    def side(name: str, call: Callable[[], list[list[float]]]) -> Callable[[], None]:
        def run() -> None:
            tables[name] = call()

        return run

    sides = {
        "tombola": side("tombola", lambda: search_by_tombola(recipe, data_dir)),
        "shallow": side("shallow", lambda: search_by_tombola(shallow, data_dir)),
        "plain loop": side("plain loop", lambda: search_by_hand(recipe, data_dir, fused=False)),
        "fused loop": side("fused loop", lambda: search_by_hand(recipe, data_dir, fused=True)),
    }
    seconds = {name: median(times) for name, times in take_turns(sides, turns, warm_up=False).items()}
    compare_accuracies(tables)
    ratios = {name: seconds[name] / seconds["tombola"] for name in ("plain loop", "fused loop")}
    deeper = seconds["tombola"] / seconds["shallow"] - 1
    table = Table("side", "seconds", "times as long", "mean test accuracy")
    for name in ("tombola", "fused loop", "plain loop"):
        table.add_row(name, f"{seconds[name]:.1f}", f"{ratios.get(name, 1):.1f}", f"{np.mean(tables[name]):.2%}")
    console.print(f"{replicates} searches of {levels + 1} levels, {iterations:,} iterations each:")
    console.print(table)
    console.print(f"tombola: going from {shallow.search.levels + 1} to {levels + 1} levels adds {deeper:.0%}.")
    console.print(machine())
    if save:
        result: dict[str, Any] = {
            "data": data,
            "iterations": iterations,
            "replicates": replicates,
            "levels": levels + 1,
            "threads of the loops": torch.get_num_threads(),
            "seconds": seconds,
            "ratios": ratios,
            "deeper": {"from": shallow.search.levels + 1, "to": levels + 1, "adds": deeper},
            "accuracies": {name: np.mean(table, axis=0).tolist() for name, table in tables.items()},
        }
        console.print(f"Written to {write('search', result)}.")


def compare_first_losses(recipe: Recipe, data_dir: Path | None) -> None:
    """Exit unless all sides have the same losses in the first steps of the dense network."""
    run = RecipeExperiment(recipe, data_dir).dense(0)
    split = prepare(run.data, data_dir)
    order = batches(run.seed, len(split.train), run.training.batch_size, 0, FIRST_STEPS)
    sparse = sparse_learner(run, split)
    sparse.train(order[None], 0)
    losses = {"tombola": sparse.take_losses()[0]}
    for name, fused in (("plain loop", False), ("fused loop", True)):
        loop = Loop(build(run.start), run.mask, run.training.lr, fused)
        loop.train(*whole(split.train), order)
        losses[name] = loop.take_losses()
    check_first_losses(losses)


def compare_accuracies(tables: dict[str, list[list[float]]]) -> None:
    """Exit unless the accuracies of all sides agree: to half a point in the mean, and to 3 points at each level.

    Rounding differs, and training magnifies the difference, most of all in the sparsest networks.
    """
    for name in ("plain loop", "fused loop"):
        difference = np.mean(tables[name], axis=0) - np.mean(tables["tombola"], axis=0)
        if abs(difference.mean()) > 0.005 or np.abs(difference).max() > 0.03:
            raise SystemExit(f"the sides disagree: test accuracies of tombola and the {name} differ by {difference}")


if __name__ == "__main__":
    typer.run(main)
