"""Replicate-steps per second by the size of a stack, compared with training one by one on the same device.

    python -m benchmarks.gpu

LeNet-300-100, masks with 13.4% of the weights, Adam and batches of 60 as in the paper, on made-up images of MNIST's
shape. All sides train the same number of steps of the same run, in turns; n steps of a stack of R runs are R·n
replicate-steps. One by one is the eager engine; `plain` is the same loop without the engines' deterministic settings.
A stack's share of the memory bandwidth counts only the bytes that a step must move: see `benchmarks.roofline`.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.box import SIMPLE
from rich.table import Table

from benchmarks import grid, roofline, stacks
from benchmarks.ceilings import COPIED, copy_bandwidth
from benchmarks.common import (
    ContinuedTraining,
    check_first_losses,
    console,
    machine,
    median,
    seconds_per_call,
    take_turns,
    wait,
    write,
)
from tombola.engines.precision import matmul_precision
from tombola.experiments.recipe import load_recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.runs.initial_state import masked_network
from tombola.runs.run import Precision, Run
from tombola.zoo.datasets import prepare
from tombola.zoo.datasets.split import Split

SIZES = (1, 16, 64, 256, 1024, 4096)
PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16")
TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "tf32": 1e-2, "bf16": 3e-2}
"""Of the losses of the first steps, relative."""
COMPARED = 50
"""Steps whose losses are compared, at least: with so few weights the first ones hardly depend on them."""
WORK = 51_200
"""Replicate-steps in a turn, at most."""
DENSITIES = (1.0, 0.05, 0.02)
"""At which the steps of the first release are measured: sparse kernels may depend on the density."""
GRID_SIZE = 512


def turn(training: ContinuedTraining, settings: Callable[[], Any], device: torch.device) -> Callable[[], None]:
    """Train one turn with these settings of torch, and wait for the device."""

    def call() -> None:
        with settings():
            training()
            wait(device)

    return call


def measure(
    run: Run,
    split: Split,
    size: int,
    device: torch.device,
    bandwidth: float,
    kernels: bool,
    steps: int,
    turns: int,
) -> dict[str, Any]:
    """The row of a stack of `size` copies of `run`. Exits if the sides do not train alike."""
    precision, batch = run.training.precision, run.training.batch_size
    steps = max(1, min(steps, WORK // size))
    orders = stacks.random_orders(size, steps, batch, len(split.train))
    stack = stacks.stacked([run] * size, split, device, kernels)
    trainings = {
        "stacked": ContinuedTraining(stack, orders),
        "one by one": ContinuedTraining(stacks.one_by_one(run, split, device), orders[:1]),
        "plain": ContinuedTraining(stacks.one_by_one(run, split, device), orders[:1]),
    }

    def as_engines_train() -> contextlib.AbstractContextManager[None]:
        return stacks.as_engines_train(precision, device)

    def plain_settings() -> contextlib.AbstractContextManager[None]:
        return matmul_precision(precision, device)

    settings = {"stacked": as_engines_train, "one by one": as_engines_train, "plain": plain_settings}
    with as_engines_train():
        for training in trainings.values():
            for _ in range(-(-COMPARED // steps)):
                training()
        first = {name: training.learner.take_losses()[0] for name, training in trainings.items()}
    check_first_losses(first, TOLERANCES[precision])
    sides = {name: turn(training, settings[name], device) for name, training in trainings.items()}
    seconds = {name: median(times) for name, times in take_turns(sides, turns).items()}
    stacked, alone, plain = (count * steps / seconds[name] for name, count in zip(sides, (size, 1, 1), strict=True))
    least = roofline.stacked_step(run.training.optimizer, batch, "least", widths(run)).total
    return {
        "size": size,
        "optimizer": run.training.optimizer,
        "precision": precision,
        "kernels": "fused" if stack.fused_step else "masking" if stack.masked_optimizer.kernels else "none",
        "density": run.mask.density,
        "stacked": stacked,
        "one_by_one": alone,
        "plain": plain,
        "ratio": stacked / alone,
        "ratio_to_plain": stacked / plain,
        "share_of_bandwidth": least * stacked / bandwidth,
    }


def widths(run: Run) -> tuple[int, ...]:
    """Units of each layer of a network of linear layers, inputs first."""
    shapes = [kept.shape for kept in run.mask.values()]
    return (shapes[0][1], *(shape[0] for shape in shapes))


def rows(
    runs: Sequence[Run], split: Split, sizes: Sequence[int], device: torch.device, bandwidth: float, **work: int
) -> Iterator[dict[str, Any]]:
    """A row for each size and each run, on a GPU with Triton's kernels and without; it says so where memory is too
    small or the sides do not train alike."""
    for size in sizes:
        for run, kernels in itertools.product(runs, (True, False) if device.type == "cuda" else (False,)):
            try:
                row = measure(run, split, size, device, bandwidth, kernels, **work)
            except (torch.cuda.OutOfMemoryError, SystemExit) as error:
                failed = "out of memory" if isinstance(error, torch.cuda.OutOfMemoryError) else str(error)
                row = {"size": size, "precision": run.training.precision, "failed": failed}
            yield row
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()


def disagreements(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What is wrong with the rows whose sides did not train alike."""
    return [row["failed"] for row in rows if "disagree" in row.get("failed", "")]


def first_release(
    precisions: Sequence[Precision], size: int, split: Split, device: torch.device, bandwidth: float, **work: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The measured steps of the first release's experiment, and its projected minutes with each precision."""
    runs = [
        stacks.made_up_run(density=density, precision=precision, **stacks.SGD)
        for precision in precisions
        for density in DENSITIES
    ]
    measured = list(rows(runs, split, [size], device, bandwidth, **work))
    return measured, [projection(measured, precision, size, split, device) for precision in precisions]


def projection(
    measured: Sequence[dict[str, Any]], precision: Precision, size: int, split: Split, device: torch.device
) -> dict[str, Any]:
    """The projected minutes, from the measured steps and from an evaluation and the building of a network."""
    rates: dict[float, float] = {}
    for row in measured:
        if row["precision"] == precision and "stacked" in row:
            rates[row["density"]] = max(row["stacked"], rates.get(row["density"], 0.0))
    run = stacks.made_up_run(precision=precision, **stacks.SGD)
    learner = stacks.stacked([run] * size, split, device)
    with stacks.as_engines_train(precision, device):
        evaluation = seconds_per_call(lambda: learner.evaluate("validation"), device, calls=5, turns=3)
    example = evaluation / size / len(split.validation)
    network = seconds_per_call(lambda: masked_network(run), torch.device("cpu"), turns=3)
    parts = grid.projected(rates, example, network)
    minutes = {f"{name}, minutes": seconds / 60 for name, seconds in parts._asdict().items()}
    return {"precision": precision, **minutes, "all, minutes": parts.total / 60}


def show(rows: Sequence[dict[str, Any]]) -> Table:
    """The table of the measured rows."""
    columns = (
        "runs",
        "training",
        "kernels",
        "left",
        "stacked/s",
        "one by one",
        "plain",
        "ratio",
        "to plain",
        "bandwidth",
    )
    table = Table(*columns, box=SIMPLE)
    for row in rows:
        if "failed" in row:
            table.add_row(str(row["size"]), row["precision"], "", "", row["failed"])
            continue
        table.add_row(
            str(row["size"]),
            f"{row['optimizer']} {row['precision']}",
            row["kernels"],
            f"{row['density']:.1%}",
            *(f"{row[name]:,.0f}" for name in ("stacked", "one_by_one", "plain")),
            *(f"{row[name]:.1f}" for name in ("ratio", "ratio_to_plain")),
            f"{row['share_of_bandwidth']:.1%}",
        )
    return table


def runs_on(data: str | None, data_dir: Path | None, precisions: Sequence[Precision]) -> tuple[list[Run], Split]:
    """The run for each precision, and its data: those of `data`, or made up."""
    if data is None:
        return [stacks.made_up_run(precision=each) for each in precisions], stacks.made_up_split()
    recipe = load_recipe("lenet-mnist", [f"data.name={data}", "data.validation=500"])
    dense = RecipeExperiment(recipe, data_dir).dense(0)
    random = stacks.made_up_run(inputs=dense.start.network.inputs)
    run = dense.masked(random.mask)
    trainings = [run.training.model_copy(update={"precision": each}) for each in precisions]
    return [run.model_copy(update={"training": each}) for each in trainings], prepare(run.data, data_dir)


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cuda" if torch.cuda.is_available() else "cpu",
    sizes: Annotated[list[int] | None, typer.Option(help="Sizes of stacks.")] = None,
    precisions: Annotated[list[str] | None, typer.Option(help="fp32, tf32 or bf16; on a CPU only fp32.")] = None,
    steps: Annotated[int, typer.Option(help="Steps of a turn, at most.")] = 200,
    turns: Annotated[int, typer.Option(help="Turns of each side.")] = 5,
    data: Annotated[str | None, typer.Option(help="Data set, such as mnist, instead of made-up images.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder to look for data in.")] = None,
    project: Annotated[bool, typer.Option(help="Project the duration of the first release's experiment.")] = True,
    save: Annotated[bool, typer.Option(help="Write results/stacked-cuda.json, or stacked-cpu.json.")] = True,
) -> None:
    """Compare losses, measure, print ratios, write the results."""
    torch.set_num_threads(1)
    place = torch.device(device)
    cuda = place.type == "cuda"
    bandwidth = copy_bandwidth(place, COPIED if cuda else COPIED // 8)
    runs, split = runs_on(data, data_dir, precisions or (PRECISIONS if cuda else ("fp32",)))  # type: ignore[arg-type]
    measured = list(rows(runs, split, sizes or SIZES, place, bandwidth, steps=steps, turns=turns))
    result: dict[str, Any] = {"data": data or "made up", "bandwidth": bandwidth, "rows": measured}
    console.print(f"Replicate-steps on {device}, whose memory copies {bandwidth / 1e12:.2f} TB/s:")
    console.print(show(measured))
    if project:
        of_release, minutes = first_release(
            ("fp32", "tf32") if cuda else ("fp32",),
            GRID_SIZE if cuda else 2,
            stacks.made_up_split(),
            place,
            bandwidth,
            steps=steps,
            turns=turns,
        )
        result |= {"release rows": of_release, "release": minutes}
        console.print(f"The steps of {grid.RECIPE}:")
        console.print(show(of_release))
        for row in minutes:
            words = ", ".join(f"{name}: {each:,.0f}" for name, each in row.items() if name != "precision")
            console.print(f"Its 19,220 trainings, projected, {row['precision']}: {words}")
    console.print(machine())
    if wrong := disagreements([*measured, *result.get("release rows", [])]):
        raise SystemExit(wrong[0])
    if save:
        console.print(f"Written to {write(f'stacked-{place.type}', result)}.")


if __name__ == "__main__":
    typer.run(main)
