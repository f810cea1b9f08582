"""Channels pruned by tombola and by Torch-Pruning, from the same trained ResNet-20 on CIFAR-10.

    python -m pip install --no-deps torch-pruning==1.6.0
    python -m benchmarks.torch_pruning --work trained

For each seed a ResNet-20 is trained, or read from the folder of an earlier call. Torch-Pruning (Fang et al. 2023,
arXiv 2301.12900: dependency graph, group magnitude) removes channels step by step, as its own benchmark does, until
half of the multiply-adds are left; tombola prunes to the same multiply-adds and compacts. Both rank channels within
layers, and globally. All are then fine-tuned in the same way, on the same batches with the same augmentation, like
the dense network beside them. The test set is used once for each network, at the end. On two cores, an epoch takes
one to two minutes.
"""

from __future__ import annotations

import copy
import functools
import importlib
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.common import console, machine, median, take_turns, write
from tombola.engines.augmentation import AugmentationDraws, augment
from tombola.experiments.recipe import load_recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.exports.benchmark import count_multiply_adds
from tombola.exports.compaction import compact
from tombola.pruning.prune_model import prune
from tombola.runs.run import Run
from tombola.utils.workers import cores
from tombola.zoo.batches import BatchOrder
from tombola.zoo.datasets import prepare
from tombola.zoo.datasets.example_set import ExampleSet
from tombola.zoo.datasets.split import Split
from tombola.zoo.models import build

RECIPE = "resnet20-cifar10-openlth"
SCOPES = ("layer", "global")
STEPS = 400
"""In how many steps Torch-Pruning would remove everything; its own benchmark takes as many."""
BATCHES = (1, 64)
"""Sizes of the batches whose latency is measured."""
EQUAL = 0.03
"""How far the multiply-adds of two sides may be apart."""


@dataclass
class Side:
    """A network that is fine-tuned, and what was measured of it."""

    network: nn.Module
    parameters: int
    multiply_adds: int
    before: float
    """Its accuracy on the validation set as pruned, without fine-tuning."""
    accuracy: float = 0.0
    """On the test set, fine-tuned."""
    latency: dict[int, float] = field(default_factory=dict)
    """Seconds by size of the batch."""

    def figures(self) -> dict[str, Any]:
        """All but the network."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "network"}


def torch_pruning() -> Any:
    """The package, which is no dependency of tombola."""
    try:
        return importlib.import_module("torch_pruning")
    except ImportError:
        raise SystemExit("missing: python -m pip install --no-deps torch-pruning==1.6.0") from None


def pruned_by_torch_pruning(network: nn.Module, example: Tensor, density: float, scope: str) -> nn.Module:
    """Fewer channels, step by step, until at most this fraction of the multiply-adds is left."""
    package, smaller = torch_pruning(), copy.deepcopy(network)
    (*_, classifier) = (module for module in smaller.modules() if isinstance(module, nn.Linear))
    pruner = package.pruner.BasePruner(
        smaller,
        example,
        importance=package.importance.GroupMagnitudeImportance(p=2),
        global_pruning=scope == "global",
        pruning_ratio=1.0,
        iterative_steps=STEPS,
        ignored_layers=[classifier],
    )
    most = density * count_multiply_adds(network, example)
    for _ in range(STEPS):
        pruner.step()
        if count_multiply_adds(smaller, example) <= most:
            return smaller
    raise SystemExit(f"Torch-Pruning does not reach {density:.0%} of the multiply-adds")


def pruned_by_tombola(network: nn.Module, example: Tensor, density: float, scope: str) -> nn.Module:
    """Fewer channels, in one step, with this fraction of the multiply-adds."""
    pruned = copy.deepcopy(network)
    prune(pruned, density, structure="channels", cost="macs", scope=scope, example=example)
    return compact(pruned, example)


def train(network: nn.Module, run: Run, split: Split, epochs: int, lr: float) -> None:
    """In place, by SGD whose rate rises in the first fifth and falls to zero. The seed of the run draws batches."""
    size, examples = run.training.batch_size, len(split.train)
    count = epochs * (examples // size)
    if not count:
        return
    order, draws = (
        BatchOrder(run.seed, examples, size),
        AugmentationDraws(run.seed, size, run.data.flip, run.data.crop),
    )
    settings: dict[str, Any] = {"momentum": run.training.momentum, "weight_decay": run.training.weight_decay}
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, nesterov=True, **settings)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=count + 1, pct_start=0.2)
    network.train()
    for step in range(count):
        x, y = split.train[order.batches(step, 1)[0]]
        x = augment(x, draws.choices(step, 1)[0], split.black, run.data.crop)
        loss = functional.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    network.eval()


@torch.inference_mode()
def accuracy(network: nn.Module, examples: ExampleSet) -> float:
    right = 0
    for batch in torch.arange(len(examples)).split(500):
        x, y = examples[batch]
        right += int((network.eval()(x).argmax(1) == y).sum())
    return right / len(examples)


def trained(run: Run, split: Split, epochs: int, lr: float, folder: Path | None) -> nn.Module:
    """The dense network, from the folder if it is there."""
    network, path = build(run.start), folder and folder / f"resnet-20-{run.key}-{epochs}-{lr:g}.pt"
    if path and path.exists():
        network.load_state_dict(torch.load(path, weights_only=True))
        return network.eval()
    train(network, run, split, epochs, lr)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), path)
    return network


def sides_of(network: nn.Module, split: Split, density: float) -> dict[str, Side]:
    """The dense network and, for each scope, one pruned by Torch-Pruning and one by tombola to the same
    multiply-adds."""
    x, whole = split.validation.x[:2], count_multiply_adds(network, split.validation.x[:2])

    def side(pruned: nn.Module) -> Side:
        count = sum(parameter.numel() for parameter in pruned.parameters())
        return Side(pruned, count, count_multiply_adds(pruned, x), accuracy(pruned, split.validation))

    sides = {"dense": side(copy.deepcopy(network))}
    for scope in SCOPES:
        theirs = side(pruned_by_torch_pruning(network, x, density, scope))
        ours = side(pruned_by_tombola(network, x, theirs.multiply_adds / whole, scope))
        if abs(ours.multiply_adds / theirs.multiply_adds - 1) > EQUAL:
            raise SystemExit(f"multiply-adds differ: {ours.multiply_adds:,} and {theirs.multiply_adds:,}, by {scope}")
        sides |= {f"Torch-Pruning, {scope}": theirs, f"tombola, {scope}": ours}
    return sides


def measure_latency(sides: dict[str, Side], examples: ExampleSet, turns: int) -> None:
    """The median of several calls of each side, in turns."""
    for size in BATCHES:
        x = examples.x[:size]
        calls: dict[str, Callable[[], Any]] = {
            name: functools.partial(side.network, x) for name, side in sides.items()
        }
        with torch.inference_mode():
            for name, seconds in take_turns(calls, turns).items():
                sides[name].latency[size] = median(seconds)


def mean(sides: list[Side], of: Callable[[Side], float]) -> float:
    return statistics.mean(map(of, sides))


def summary(found: dict[str, list[Side]]) -> dict[str, dict[str, float]]:
    """Means over the seeds; times as fast as the dense network."""
    dense = found["dense"]
    return {
        name: {
            "accuracy": mean(sides, lambda side: side.accuracy),
            "before": mean(sides, lambda side: side.before),
            "parameters": mean(sides, lambda side: side.parameters),
            "multiply_adds": mean(sides, lambda side: side.multiply_adds),
            **{
                f"speed {b}": mean(dense, lambda s: s.latency[b]) / mean(sides, lambda s: s.latency[b])  # noqa: B023
                for b in BATCHES
            },
        }
        for name, sides in found.items()
    }


def show(means: dict[str, dict[str, float]]) -> None:
    table = Table("side", "accuracy", "as pruned", "parameters", "multiply-adds", *(f"× dense, {b}" for b in BATCHES))
    for name, row in means.items():
        speeds = [f"{row[f'speed {b}']:.2f}" for b in BATCHES]
        counts = [f"{row['parameters']:,.0f}", f"{row['multiply_adds']:,.0f}"]
        table.add_row(name, f"{row['accuracy']:.2%}", f"{row['before']:.2%}", *counts, *speeds)
    console.print(table)
    for scope in SCOPES:
        ours, theirs = means[f"tombola, {scope}"], means[f"Torch-Pruning, {scope}"]
        points, parameters = 100 * (ours["accuracy"] - theirs["accuracy"]), ours["parameters"] / theirs["parameters"]
        console.print(f"by {scope}: tombola {points:+.2f} points, {parameters:.3f} times the parameters")


def main(
    epochs: Annotated[int, typer.Option(help="Of the dense training.")] = 8,
    fine_tuning: Annotated[int, typer.Option(help="Epochs after pruning.")] = 2,
    density: Annotated[float, typer.Option(help="Fraction of the multiply-adds left.")] = 0.5,
    seeds: Annotated[int, typer.Option(help="How many networks are trained.")] = 3,
    lr: Annotated[float, typer.Option(help="The highest rate of the dense training.")] = 0.2,
    fine_tuning_lr: Annotated[float, typer.Option(help="The highest rate of the fine-tuning.")] = 0.05,
    turns: Annotated[int, typer.Option(help="Calls of each side for its latency.")] = 21,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Override values of the recipe.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder to look for data in.")] = None,
    work: Annotated[Path | None, typer.Option(help="Keep trained networks here, for next time.")] = None,
    threads: Annotated[int | None, typer.Option(help="How many [default: all cores].")] = None,
    save: Annotated[bool, typer.Option(help="Write results/torch_pruning.json.")] = True,
) -> None:
    """Train, prune, fine-tune, compare, print means and differences, write results/torch_pruning.json."""
    torch_pruning()  # before anything is trained
    torch.set_num_threads(threads or cores())
    experiment = RecipeExperiment(load_recipe(RECIPE, overrides or []), data_dir)
    settings = {"epochs": epochs, "fine_tuning": fine_tuning, "density": density, "lr": lr}
    settings |= {"fine_tuning_lr": fine_tuning_lr, "overrides": overrides or []}
    found: dict[str, list[Side]] = {}
    for seed in range(seeds):
        run = experiment.dense(seed)
        split = prepare(run.data, data_dir)
        network = trained(run, split, epochs, lr, work)
        sides = sides_of(network, split, density)
        for side in sides.values():
            train(side.network, run.model_copy(update={"seed": run.seed + 1}), split, fine_tuning, fine_tuning_lr)
            side.accuracy = accuracy(side.network, split.test)
        measure_latency(sides, split.test, turns)
        for name, side in sides.items():
            found.setdefault(name, []).append(side)
        means = summary(found)
        console.print(f"{seed + 1} of {seeds} seeds", style="bold")
        show(means)
        if save:  # the next seed takes a while
            rows = {name: [side.figures() for side in sides] for name, sides in found.items()}
            path = write("torch_pruning", {"settings": settings, "means": means, "seeds": rows})
            console.print(f"Written to {path}.", machine())


if __name__ == "__main__":
    typer.run(main)
