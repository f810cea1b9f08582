"""Milliseconds per training step, by engine and density: LeNet-300-100 on MNIST, batches of 60, Adam.

    python -m benchmarks.step

All sides start from the same weights and train the same steps on the same batches, on one thread; each turn continues
the training of the turn before. Also timed: the sparse engine on all cores at once, with one run on each, and the
matrix products of a dense step alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks.common import (
    FIRST_STEPS,
    ContinuedTraining,
    Loop,
    check_accuracies,
    check_first_losses,
    console,
    machine,
    median,
    take_turns,
    write,
)
from tombola.engines.eager import ModuleLearner
from tombola.engines.sparse.stack import recognise_stack
from tombola.engines.sparse.stack_learner import StackLearner
from tombola.experiments.recipe import Recipe, load_recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.pruning.mask import Mask
from tombola.pruning.scores import random
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.runs.initial_state import masked_network
from tombola.runs.run import Run
from tombola.utils.workers import cores
from tombola.zoo.batches import batches
from tombola.zoo.datasets import prepare
from tombola.zoo.datasets.split import Split
from tombola.zoo.models import build

CPU = torch.device("cpu")


def masks(recipe: Recipe, run: Run, levels: int) -> list[Mask]:
    """The masks of the recipe's levels, pruned at random: the positions of the kept weights do not affect speed."""
    network = build(run.start)
    weights = {name: network.state_dict()[name] for name in run.mask}
    pruner = replace(recipe.search.pruner(network), score=random)
    ladder = [run.mask]
    for level in range(levels):
        ladder.append(pruner(ScoreInputs(weights, ladder[-1], seed=level)))
    return ladder


def sparse_learner(run: Run, split: Split) -> StackLearner:
    network = build(run.start)
    stack = recognise_stack(network)
    assert not isinstance(stack, str)
    return StackLearner(stack, network.state_dict(), run, split)


def eager_learner(run: Run, split: Split) -> ModuleLearner:
    return ModuleLearner(masked_network(run), run, split, CPU)


def products(run: Run) -> Callable[[], None]:
    """Only the matrix products of one dense step: outputs, and gradients of weights and hidden inputs."""
    batch = run.training.batch_size
    shapes = [tuple(kept.shape) for kept in run.mask.values()]
    weights = [torch.rand(shape) for shape in shapes]
    inputs = [torch.rand(shape[1], batch) for shape in shapes]
    outputs = [torch.rand(shape[0], batch) for shape in shapes]

    def call() -> None:
        for weight, x, y in zip(weights, inputs, outputs, strict=True):
            torch.mm(weight, x)
            torch.mm(y, x.T)
        for weight, y in zip(weights[1:], outputs[1:], strict=True):
            torch.mm(weight.T, y)

    return call


def work(mask: Mask, batch: int) -> float:
    """Floating-point operations of a step on kept weights, forward and backward."""
    counts = list(mask.counts.values())
    return 2.0 * batch * (2 * sum(counts) + sum(counts[1:]))


def memory(learner: StackLearner) -> tuple[int, int]:
    """Bytes that depend on the kept weights (values, gradients, optimizer, best, indices), and of activations."""
    orders = [slot.order for slot in learner.layout.slots if slot.order is not None]
    weights = [*learner.current, learner.best, *learner.layout.structure, *orders]
    activations = [*learner.workspace, *learner.evaluation_workspace]
    return sum(array.nbytes for array in weights), sum(array.nbytes for array in activations)


def at_once(trainings: list[ContinuedTraining]) -> Callable[[], None]:
    """All trainings at once, one thread each."""

    def call() -> None:
        threads = [threading.Thread(target=training) for training in trainings]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return call


def measure(run: Run, mask: Mask, split: Split, steps: int, turns: int) -> dict[str, Any]:
    """Milliseconds per step of each side, at one density. Exits if the sides do not train alike."""
    run = run.masked(mask)
    order = batches(run.seed, len(split.train), run.training.batch_size, 0, steps)
    x, y = split.train[torch.arange(len(split.train))]
    sparse, *others = [ContinuedTraining(sparse_learner(run, split), order[None]) for _ in range(1 + cores())]
    eager = ContinuedTraining(eager_learner(run, split), order[None])
    loops = {fused: Loop(build(run.start), mask, run.training.lr, fused) for fused in (False, True)}
    engines = {"sparse": sparse, "eager": eager}
    for training in engines.values():
        training(FIRST_STEPS)
    first = {name: training.learner.take_losses()[0] for name, training in engines.items()}
    for loop in loops.values():
        loop.train(x, y, order[:FIRST_STEPS])
    check_first_losses(first | {"plain loop": loops[False].take_losses(), "fused loop": loops[True].take_losses()})
    product = products(run)
    sides = {
        "sparse": sparse,
        f"sparse, {cores()} at once": at_once(others),
        "eager": eager,
        "plain loop": lambda: loops[False].train(x, y, order),
        "fused loop": lambda: loops[True].train(x, y, order),
        "products": lambda: [product() for _ in range(steps)],
    }
    seconds = take_turns(sides, turns)
    check_accuracies({name: training.learner.evaluate("test")[0].accuracy for name, training in engines.items()})
    weights, activations = memory(sparse.learner)
    return {
        "weights": mask.count,
        "density": mask.density,
        "ms": {name: median(times) / steps * 1e3 for name, times in seconds.items()},
        "gflop": work(mask, run.training.batch_size) / 1e9,
        "bytes": {"weights": weights, "activations": activations},
    }


def main(
    levels: Annotated[int, typer.Option(help="Prunings after the dense network.")] = 21,
    every: Annotated[int, typer.Option(help="Measure every so many levels.")] = 3,
    steps: Annotated[int, typer.Option(help="Steps of a turn.")] = 100,
    turns: Annotated[int, typer.Option(help="Turns of each side.")] = 9,
    data: Annotated[str, typer.Option(help="Data set.")] = "mnist",
    data_dir: Annotated[Path | None, typer.Option(help="Folder to look for data in.")] = None,
    save: Annotated[bool, typer.Option(help="Write results/step.json.")] = True,
) -> None:
    """Measure, print a table, write results/step.json."""
    torch.set_num_threads(1)
    recipe = load_recipe("lenet-mnist", [f"data.name={data}", "data.validation=500"])
    run = RecipeExperiment(recipe, data_dir).dense(0)
    split = prepare(run.data, data_dir)
    with threadpool_limits(1, user_api="blas"):
        rows = [measure(run, mask, split, steps, turns) for mask in masks(recipe, run, levels)[::every]]
    peak = rows[0]["gflop"] / min(row["ms"]["products"] for row in rows) * 1e3
    alone, both, *_ = rows[0]["ms"]
    console.print(
        "Milliseconds per step; how many times that the plain loop takes, beside one run and per run of all:"
    )
    table = Table(
        "left", "sparse", f"×{cores()}", "eager", "fused", "plain", "times", "", "peak", "KB", "+KB", box=None
    )
    for row in rows:
        ms = row["ms"]
        row["of_peak"] = row["gflop"] / ms[alone] * 1e3 / peak
        row["ratio"] = ms["plain loop"] / ms[alone]
        row["ratio_of_all"] = ms["plain loop"] / (ms[both] / cores())
        table.add_row(
            f"{row['density']:.1%}",
            *(f"{ms[name]:.3f}" for name in (alone, both, "eager", "fused loop", "plain loop")),
            f"{row['ratio']:.1f}",
            f"{row['ratio_of_all']:.1f}",
            f"{row['of_peak']:.0%}",
            *(f"{bytes_ / 1e3:,.0f}" for bytes_ in row["bytes"].values()),
        )
    console.print(table)
    dense = rows[0]["ms"]
    for line in (
        f"sparse: one run; ×{cores()}: as many at once, a thread each.",
        f"peak: what the useful arithmetic reaches of {peak:.0f} GFLOP/s, the rate of dense products on one thread.",
        "KB: memory that follows the weights; +KB: that of activations.",
        f"The products of a dense step alone take {dense['products']:.3f} ms, the sparse engine's dense step "
        f"{dense[alone] / dense['products']:.2f} times that.",
    ):
        console.print(line)
    console.print(machine())
    if save:
        result = {"data": data, "batch_size": run.training.batch_size, "peak_gflops": peak, "rows": rows}
        console.print(f"Written to {write('step', result)}.")


if __name__ == "__main__":
    typer.run(main)
