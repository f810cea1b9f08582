"""A search for winning tickets by hand, in PyTorch: the part of `benchmarks.search` that other processes import."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.loops import Loop, whole
from tombola.experiments.recipe import Recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.pruning.mask import Mask
from tombola.runs.run import Run
from tombola.zoo.batches import BatchOrder
from tombola.zoo.datasets import prepare
from tombola.zoo.datasets.split import Split


def prune_by_magnitude(weights: dict[str, Tensor], mask: Mask, recipe: Recipe) -> Mask:
    """As in most scripts: sort the kept weights of each layer, and prune the smallest."""
    kept = {}
    for name, old in mask.items():
        left = weights[name].abs()[old]
        cut = round(rate_of(name, recipe) * len(left))
        threshold = left.sort().values[cut]
        kept[name] = old & (weights[name].abs() >= threshold)
    return Mask(kept)


def rate_of(name: str, recipe: Recipe) -> float:
    """The fraction of the kept weights of this parameter that a level prunes."""
    search = recipe.search
    assert search.rate is not None
    if name.startswith("output") and search.output_rate is not None:
        return search.output_rate
    return next(
        (rate for layer, rate in search.rates.items() if fnmatch.fnmatch(name, f"{layer}.weight")), search.rate
    )


def train_by_hand(run: Run, split: Split, parts: list[tuple[Tensor, Tensor]], fused: bool) -> tuple[Loop, float]:
    """A training with all its evaluations: with its last weights, and its test accuracy at early stop."""
    (x, y), validation, test = parts
    options = run.training
    length, every = options.length.iterations, options.evaluate_every.iterations
    order, loop, lowest = (
        BatchOrder(run.seed, len(x), options.batch_size),
        Loop(run, split, x, y, fused),
        float("inf"),
    )
    best = loop.copied_weights()
    for begin in range(0, length, every):
        count = min(every, length - begin)
        loop.train(order.batches(begin, count)[None], begin)
        loss, _ = loop.score(*validation)
        if loss < lowest:
            lowest, best = loss, loop.copied_weights()
    loop.score(x, y), loop.score(*test)
    last = loop.copied_weights()
    loop.network.load_state_dict(best)
    loop.score(x, y)
    _, accuracy = loop.score(*test)
    loop.network.load_state_dict(last)
    return loop, accuracy


def search_one(recipe: Recipe, data_dir: Path | None, fused: bool, threads: int, replicate: int) -> list[float]:
    """Test accuracy at early stop by level; in a replicate's controls too, levels are trained but not reported."""
    torch.set_num_threads(threads)
    run = RecipeExperiment(recipe, data_dir).dense(replicate)
    split = prepare(run.data, data_dir)
    parts, accuracies = [whole(examples) for examples in (split.train, split.validation, split.test)], []
    for level in range(recipe.search.levels + 1):
        loop, accuracy = train_by_hand(run, split, parts, fused)
        accuracies.append(accuracy)
        for draw in range(reinitialised(recipe) if level else 0):
            train_by_hand(run.reinitialised(run.start.seed + 1 + draw), split, parts, fused)
        run = run.masked(prune_by_magnitude(loop.copied_weights(), run.mask, recipe))
    return accuracies


def reinitialised(recipe: Recipe) -> int:
    """How many controls from other initial weights each level below the dense network has."""
    return sum(control.draws for control in recipe.controls.values())
