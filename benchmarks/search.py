"""A whole search, compared with hand-written loops: the whole of a recipe's search, beside the same in PyTorch.

    python -m benchmarks.search
    python -m benchmarks.search --recipe conv2-cifar10-small --controls

By default LeNet-300-100 on MNIST with the paper's settings, 22 levels. All sides search from the same initial
weights, on the same splits and batches, with the same evaluations (of the validation examples at the recipe's
interval; training and test examples at the end, with the last and the best weights). Their losses in the first steps
and their accuracies must agree. tombola's side is the whole program: `tombola.run_experiment` with its store and
tables.

The hand-written loops train one replicate after another on all cores, or one in a process on each core, whichever is
faster in a short trial; the processes have started before they are timed.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from benchmarks.common import (
    FIRST_STEPS,
    Trainer,
    check_first_losses,
    console,
    machine,
    median,
    take_turns,
    write_entry,
)
from benchmarks.loops import Loop, whole
from benchmarks.search_loop import reinitialised, search_one
from tombola._run_experiment import run_experiment
from tombola.engines.sparse.engine import learner_of
from tombola.experiments.recipe import Recipe, load_recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.utils.duration import Duration
from tombola.utils.workers import InlineExecutor, cores, parallel_executor
from tombola.zoo.batches import batches
from tombola.zoo.datasets import prepare

SHORT = 11
"""Levels of a shorter search, to measure what deeper levels cost."""
TRIAL = 200
"""Iterations of the trainings that decide how the loops use the cores."""
LOOPS = {"plain loop": False, "fused loop": True}
"""Whether the optimizer is fused."""


def search_by_hand(
    recipe: Recipe, data_dir: Path | None, fused: bool, processes: Executor | None
) -> list[list[float]]:
    """Test accuracy at early stop, by replicate and level; one after another where no processes are given."""
    executor, threads = (processes, 1) if processes else (InlineExecutor(), cores())
    one = functools.partial(search_one, recipe, data_dir, fused, threads)
    return list(executor.map(one, range(recipe.replicates)))


def _trial(recipe: Recipe, levels: int) -> Recipe:
    """The recipe with few iterations, and one replicate for each core."""
    iterations = min(TRIAL, recipe.training.length.iterations)
    training = recipe.training.model_copy(update={"length": Duration(iterations=iterations)})
    search = recipe.search.model_copy(update={"levels": levels})
    return recipe.model_copy(update={"replicates": cores(), "training": training, "search": search})


def faster_way(recipe: Recipe, data_dir: Path | None, processes: Executor) -> Executor | None:
    """The processes if they train the dense networks of a trial faster with the fused loop, else None."""
    ways: dict[str, Executor | None] = {"processes": processes, "threads": None}
    trial = _trial(recipe, levels=0)
    calls = {way: functools.partial(search_by_hand, trial, data_dir, True, use) for way, use in ways.items()}
    seconds = {way: median(times) for way, times in take_turns(calls, 1).items()}
    return ways[min(seconds, key=seconds.__getitem__)]


def search_by_tombola(recipe: Recipe, data_dir: Path | None) -> list[list[float]]:
    """The same table; each time in a new folder, so that nothing comes from the store."""
    with tempfile.TemporaryDirectory() as folder:
        results = run_experiment(recipe, Path(folder) / "out", data_dir=data_dir, workers=cores())
    rows = sorted(
        (row.replicate, row.level, row.measures["test_accuracy_at_stop"])
        for row in results.rows
        if row.branch == "ticket"
    )
    return [[a or 0.0 for r, _, a in rows if r == replicate] for replicate in range(recipe.replicates)]


def settings_of(
    iterations: int | None, replicates: int | None, levels: int | None, controls: bool, overrides: list[str]
) -> list[str]:
    """The overrides of a recipe."""
    given = {"training.length": f"{iterations}it" if iterations else None, "replicates": replicates}
    given["search.levels"] = levels
    settings = [f"{name}={value}" for name, value in given.items() if value is not None]
    return [*settings, *([] if controls else ["controls="]), *overrides]


def check_recipe(recipe: Recipe) -> None:
    """Exit for what the loops by hand do not do."""
    if recipe.search.rate is None or recipe.search.scope != "layer" or recipe.search.structure != "weights":
        raise SystemExit("the loops prune each layer's weights at a rate")
    if set(recipe.controls) - {"reinit"}:
        raise SystemExit("the loops have no other controls than reinit")


def main(
    recipe: Annotated[str, typer.Option(help="A recipe that prunes within layers.")] = "lenet-mnist",
    iterations: Annotated[int | None, typer.Option(help="Of each training [default: the recipe's].")] = None,
    replicates: Annotated[int | None, typer.Option(help="Searches [default: the recipe's].")] = None,
    levels: Annotated[int | None, typer.Option(help="Prunings [default: the recipe's].")] = None,
    controls: Annotated[bool, typer.Option(help="Also train the recipe's reinitialised controls.")] = False,
    turns: Annotated[int, typer.Option(help="Turns of each side.")] = 3,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Override values of the recipe.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder to look for data in.")] = None,
    save: Annotated[bool, typer.Option(help="Write results/search.json.")] = True,
) -> None:
    """Compare losses, measure, compare accuracies, print ratios, write the recipe's entry of results/search.json."""
    whole_recipe = load_recipe(recipe, settings_of(iterations, replicates, levels, controls, overrides or []))
    check_recipe(whole_recipe)
    compare_first_losses(whole_recipe, data_dir)
    with parallel_executor(cores()) as processes:
        result = measure(whole_recipe, data_dir, processes, turns)
    table = Table("side", "seconds", "times as long", "mean test accuracy")
    for name, seconds in result["seconds"].items():
        if name in result["accuracies"]:
            accuracy = np.mean(result["accuracies"][name])
            table.add_row(name, f"{seconds:.1f}", f"{result['ratios'].get(name, 1):.1f}", f"{accuracy:.2%}")
    console.print(
        f"{result['replicates']} searches of {result['levels']} levels, {result['iterations']:,} iterations each; "
        f"loops: {result['loops']}:"
    )
    console.print(table)
    if deeper := result["deeper"]:
        console.print(f"tombola: going from {deeper['from']} to {deeper['to']} levels adds {deeper['adds']:.0%}.")
    console.print(machine())
    if save:
        console.print(f"Written to {write_entry('search', recipe, result)}.")


def measure(recipe: Recipe, data_dir: Path | None, processes: Executor, turns: int) -> dict[str, Any]:
    """Seconds of all sides. Exits if their accuracies disagree."""
    levels = recipe.search.levels
    shallow = recipe.model_copy(update={"search": recipe.search.model_copy(update={"levels": min(SHORT, levels)})})
    search_by_tombola(_trial(recipe, levels), data_dir)  # compiles the kernels and reads the data before the timing
    use = faster_way(recipe, data_dir, processes)
    tables: dict[str, list[list[float]]] = {}

    def side(name: str, call: Callable[[], list[list[float]]]) -> Callable[[], None]:
        def run() -> None:
            tables[name] = call()

        return run

    calls = {"tombola": functools.partial(search_by_tombola, recipe, data_dir)}
    for name, fused in LOOPS.items():
        calls[name] = functools.partial(search_by_hand, recipe, data_dir, fused, use)
    sides = {name: side(name, call) for name, call in calls.items()}
    if levels > SHORT:
        sides["shallow"] = lambda: search_by_tombola(shallow, data_dir)  # type: ignore[assignment]
    seconds = {name: median(times) for name, times in take_turns(sides, turns, warm_up=False).items()}
    compare_accuracies(tables)
    deeper = None
    if "shallow" in seconds:
        adds = seconds["tombola"] / seconds["shallow"] - 1
        deeper = {"from": SHORT + 1, "to": levels + 1, "adds": adds}
    return {
        "data": recipe.data.name,
        "iterations": recipe.training.length.iterations,
        "replicates": recipe.replicates,
        "levels": levels + 1,
        "controls": reinitialised(recipe),
        "loops": f"a process with one thread on each of {cores()} cores" if use else f"{cores()} threads",
        "seconds": seconds,
        "ratios": {name: seconds[name] / seconds["tombola"] for name in LOOPS},
        "deeper": deeper,
        "accuracies": {name: np.mean(table, axis=0).tolist() for name, table in tables.items()},
    }


def compare_first_losses(recipe: Recipe, data_dir: Path | None) -> None:
    """Exit unless all sides have the same losses in the first steps of the dense network."""
    run = RecipeExperiment(recipe, data_dir).dense(0)
    split = prepare(run.data, data_dir)
    order = batches(run.seed, len(split.train), run.training.batch_size, 0, FIRST_STEPS)
    x, y = whole(split.train)
    sides: dict[str, Trainer] = {"tombola": learner_of(run, split)}
    sides |= {name: Loop(run, split, x, y, fused) for name, fused in LOOPS.items()}
    for trainer in sides.values():
        trainer.train(order[None], 0)
    check_first_losses({name: trainer.take_losses()[0] for name, trainer in sides.items()})


def compare_accuracies(tables: dict[str, list[list[float]]]) -> None:
    """Exit unless the accuracies of all sides agree: to half a point in the mean, and to 3 points at each level.

    Rounding differs, and training magnifies the difference, most of all in the sparsest networks.
    """
    for name in LOOPS:
        difference = np.mean(tables[name], axis=0) - np.mean(tables["tombola"], axis=0)
        if abs(difference.mean()) > 0.005 or np.abs(difference).max() > 0.03:
            raise SystemExit(f"the sides disagree: test accuracies of tombola and the {name} differ by {difference}")


if __name__ == "__main__":
    typer.run(main)
