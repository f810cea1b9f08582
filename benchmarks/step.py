"""Milliseconds per training step by density, beside what users would run instead, and how far from the limit.

    python -m benchmarks.step
    python -m benchmarks.step --network conv-2

The networks are those of recipes, with their batches, optimizer and augmentation: LeNet-300-100 on MNIST, Conv-2,
Conv-6 and ResNet-20 on CIFAR-10. All sides start from the same weights and train the same steps on the same batches,
on one thread; each turn continues the training of the turn before. Sides:

- sparse: the engine that `--engine auto` chooses on a CPU; where it can train in threads, also one run on each core;
- eager: the engine for any module;
- plain, fused and compiled loop: by hand, see `benchmarks.loops`;
- JAX: by hand, see `benchmarks.jax_loop`; left out where JAX is not installed, as is what cannot be compiled here.

The limit of a step on this machine is measured at the same time; see `benchmarks.limit`.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.table import Table
from threadpoolctl import threadpool_limits
from torch import Tensor

from benchmarks.common import (
    FIRST_STEPS,
    ContinuedTraining,
    Trainer,
    check_first_losses,
    check_later_losses,
    console,
    machine,
    median,
    take_turns,
    write_entry,
)
from benchmarks.limit import Limit
from benchmarks.loops import CPU, Loop, whole
from tombola.engines.eager import ModuleLearner
from tombola.engines.sparse.engine import Sparse, learner_of
from tombola.experiments.recipe import Recipe, load_recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.pruning.mask import Mask
from tombola.pruning.scores import random
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.runs.initial_state import masked_network
from tombola.runs.run import Run
from tombola.utils.errors import InputError
from tombola.utils.text import first_line
from tombola.utils.workers import cores
from tombola.zoo.batches import batches
from tombola.zoo.datasets import prepare
from tombola.zoo.datasets.split import Split
from tombola.zoo.models import build


@dataclass(frozen=True)
class Case:
    """A network, as a recipe trains it."""

    recipe: str
    inputs: tuple[int, ...]
    """The shape of an example."""
    steps: int
    """Of a turn."""
    densities: tuple[float, ...]
    """Each is measured at the level of the recipe's search that is nearest to it."""


DENSITIES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)
CIFAR = (3, 32, 32)
CASES = {
    "mlp": Case("lenet-mnist", (28, 28), 100, tuple(0.8**level for level in range(0, 22, 3))),
    "conv-2": Case("conv2-cifar10", CIFAR, 3, DENSITIES),
    "conv-6": Case("conv6-cifar10", CIFAR, 1, DENSITIES),
    "resnet-20": Case("resnet20-cifar10-openlth", CIFAR, 1, DENSITIES),
}
LOOPS = {"plain loop": {"fused": False}, "fused loop": {}, "compiled loop": {"compiled": True}}
"""Options of `Loop`."""


@contextmanager
def random_images(inputs: tuple[int, ...], count: int = 2000) -> Iterator[Path]:
    """An `.npz` file of random images, where a recipe's data are missing: they do not affect speed."""
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 256, (count, *inputs), np.uint8), generator.integers(0, 10, count)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.npz"
        np.savez(path, x_train=x, y_train=y, x_test=x[:100], y_test=y[:100])
        yield path


def masks(recipe: Recipe, run: Run, densities: Sequence[float]) -> list[Mask]:
    """The masks of the levels of the recipe's search that are nearest to `densities`, pruned at random: the positions
    of the kept weights do not affect speed."""
    network = build(run.start)
    weights = {name: network.state_dict()[name] for name in run.mask}
    pruner = replace(recipe.search.pruner(network), score=random)
    ladder = [run.mask]
    for level in range(recipe.search.levels):
        ladder.append(pruner(ScoreInputs(weights, ladder[-1], seed=level)))
    return [min(ladder, key=lambda mask: abs(mask.density - density)) for density in densities]


def trainers(run: Run, split: Split, compiled: bool) -> Iterator[tuple[str, Callable[[], Trainer]]]:
    """The sides that train one run, and how each is made."""
    x, y = whole(split.train)
    yield "sparse", lambda: learner_of(run, split)
    yield "eager", lambda: ModuleLearner(masked_network(run), run, split, CPU)
    for name, options in LOOPS.items():
        if compiled or name != "compiled loop":
            yield name, lambda options=options: Loop(run, split, x, y, **options)  # type: ignore[misc]

    def in_jax() -> Trainer:
        from benchmarks.jax_loop import JaxLoop

        return JaxLoop(run, split, x, y)

    yield "JAX", in_jax


OPTIONAL = ("compiled loop", "JAX")
"""The sides that some machines cannot run."""


def started(run: Run, split: Split, order: Tensor, compiled: bool) -> dict[str, ContinuedTraining]:
    """All sides that work here, after the first steps, in which their losses are equal; exits if they are not."""
    torch.compiler.reset()  # every density has a network of its own
    sides: dict[str, ContinuedTraining] = {}
    for name, make in trainers(run, split, compiled):
        try:
            side = ContinuedTraining(make(), order[None])
            side(FIRST_STEPS)
        except Exception as error:  # compilers may raise anything
            if name not in OPTIONAL:
                raise
            console.print(f"{name} is left out: {first_line(error)}")
        else:
            sides[name] = side
    check_first_losses({name: side.learner.take_losses()[0] for name, side in sides.items()})
    return sides


def memory(learner: Any) -> dict[str, int] | None:
    """Bytes that depend on the kept weights (values, gradients, optimizer, best, indices), and of activations; None
    of a learner that is no compiled loop."""
    if not hasattr(learner, "workspace"):
        return None
    parts = {
        "weights": (learner.current, learner.best, learner.layout),
        "activations": (learner.workspace, learner.evaluation_workspace),
    }
    return {name: sum({id(array): array.nbytes for array in arrays(part)}.values()) for name, part in parts.items()}


def arrays(value: Any) -> Iterator[np.ndarray]:
    """The arrays of NumPy in a value, and in what it consists of."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, dict):
        yield from arrays(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for each in value:
            yield from arrays(each)
    elif type(value).__module__.startswith("tombola.engines.sparse"):
        yield from arrays(vars(value))


def at_once(trainings: list[ContinuedTraining]) -> Callable[[], None]:
    """All trainings at once, one thread each."""

    def call() -> None:
        threads = [threading.Thread(target=training) for training in trainings]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return call


def measure(run: Run, split: Split, steps: int, turns: int, compiled: bool) -> dict[str, Any]:
    """Milliseconds per step of each side, and the limit, at one density. Exits if the sides do not train alike."""
    order = batches(run.seed, len(split.train), run.training.batch_size, 0, max(steps, FIRST_STEPS))
    limit = Limit.of(run, split.train[order[0]][0])
    alone = started(run, split, order, compiled)
    sides: dict[str, Callable[[], Any]] = dict(alone)
    if Sparse().capacity(run).threads:
        others = [ContinuedTraining(learner_of(run, split), order[None]) for _ in range(cores())]
        sides[f"sparse, {cores()} at once"] = at_once(others)
    for side in alone.values():
        side.orders = side.orders[:, :steps]
    seconds = {name: median(times) for name, times in take_turns(sides | limit.calls(), turns).items()}
    check_later_losses({name: side.learner.take_losses()[0] for name, side in alone.items()})
    ms = {name: seconds[name] / steps * 1e3 for name in sides}
    return {
        "weights": run.mask.count,
        "density": run.mask.density,
        "ms": ms,
        "ratios": {name: ms[name] / ms["sparse"] for name in alone if name != "sparse"},
        "limit": limit.measured(seconds),
        "bytes": memory(alone["sparse"].learner),
    }


def add_limits(rows: list[dict[str, Any]]) -> None:
    """Milliseconds of the useful arithmetic, at the highest rate that was measured, and of the limit; its share of
    the sparse engine's step."""
    rate = max(row["limit"]["gflops"] for row in rows)
    for row in rows:
        limit = row["limit"]
        limit["arithmetic"] = limit["gflop"] / rate * 1e3
        limit["ms"] = max(limit["arithmetic"], limit["traffic"])
        limit["share"] = limit["ms"] / row["ms"]["sparse"]


def show(rows: list[dict[str, Any]]) -> None:
    """Milliseconds of the sides, with how many times as long as the sparse engine they take, and of the limits."""
    names = [name for name in rows[0]["ms"] if name != "sparse"]
    table = Table("left", "sparse", *names, "arithmetic", "traffic", "share", box=None)
    for row in rows:
        ms, limit = row["ms"], row["limit"]
        others = [
            f"{ms[name]:.3g} ×{row['ratios'][name]:.1f}" if name in row["ratios"] else f"{ms[name]:.3g}"
            for name in names
            if name in ms
        ]
        bounds = f"{limit['arithmetic']:.3g}", f"{limit['traffic']:.3g}", f"{limit['share']:.0%}"
        table.add_row(f"{row['density']:.1%}", f"{ms['sparse']:.3g}", *others, *bounds)
    console.print(table)
    console.print(
        f"arithmetic: of the kept weights, at {max(row['limit']['gflops'] for row in rows):.0f} GFLOP/s, the rate of "
        "dense products on one thread; traffic: kept weights and optimizer, read and written once; share: the larger "
        "of both, of the sparse engine's time."
    )
    for row in rows[:: max(1, len(rows) - 1)] if rows[0]["bytes"] else []:
        kb = {name: f"{count / 1e3:,.0f} KB" for name, count in row["bytes"].items()}
        console.print(
            f"Memory at {row['density']:.1%}: {kb['weights']} for weights, {kb['activations']} activations."
        )


def main(
    network: Annotated[str, typer.Option(help=f"One of {', '.join(CASES)}.")] = "mlp",
    density: Annotated[list[float] | None, typer.Option(help="Fraction of the weights left; several times.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of a turn.")] = None,
    turns: Annotated[int, typer.Option(help="Turns of each side.")] = 9,
    compiled: Annotated[bool, typer.Option(help="Also torch.compile, which takes minutes.")] = True,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Override values of the recipe.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder to look for data in.")] = None,
    save: Annotated[bool, typer.Option(help="Write results/step.json.")] = True,
) -> None:
    """Measure, print a table, write the network's entry of results/step.json."""
    if network not in CASES:
        raise typer.BadParameter(f"network: should be one of {', '.join(CASES)}, not {network}")
    case, settings = CASES[network], ["data.validation=500", *(overrides or [])]
    torch.set_num_threads(1)
    with random_images(case.inputs) as made_up:
        recipe = load_recipe(case.recipe, settings)
        try:
            run = RecipeExperiment(recipe, data_dir).dense(0)
        except InputError as error:
            console.print(f"Random images instead of data: {first_line(error)}")
            recipe = load_recipe(case.recipe, [*settings, f"data.name={made_up}"])
            run = RecipeExperiment(recipe).dense(0)
        split = prepare(run.data, data_dir)
    with threadpool_limits(1, user_api="blas"):
        rows = [
            measure(run.masked(mask), split, steps or case.steps, turns, compiled)
            for mask in masks(recipe, run, density or case.densities)
        ]
    add_limits(rows)
    console.print(f"Milliseconds per step of {network}, and how many times the sparse engine's time that is:")
    show(rows)
    console.print(machine())
    if save:
        data = "random images" if recipe.data.name.endswith("random.npz") else recipe.data.name
        result = {"data": data, "batch_size": run.training.batch_size, "rows": rows}
        console.print(f"Written to {write_entry('step', network, result)}.")


if __name__ == "__main__":
    typer.run(main)
