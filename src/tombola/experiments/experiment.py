"""Experiment: a recipe as studies, one for each replicate."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor, nn

from tombola.experiments.recipe import Recipe
from tombola.experiments.search_method import MethodContext
from tombola.experiments.sections import AUTO
from tombola.experiments.setup import set_up, set_up_transfer
from tombola.pruning.network_copy import copy_network
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun, Run
from tombola.studies.controls import CONTROLS, ControlPlan
from tombola.studies.request import Study
from tombola.studies.rewinding import Retrain, fine_tune, rewind_learning_rate, rewind_weights, train_trunk
from tombola.studies.stability import InterpolationPlan, all_candidates, smallest_stable
from tombola.studies.transfer import transfer
from tombola.utils.duration import Duration
from tombola.utils.former_names import former_attribute
from tombola.utils.seeds import Purpose, derive
from tombola.zoo.batches import batches
from tombola.zoo.datasets import prepare
from tombola.zoo.models import build

RETRAIN: dict[str, Callable[[int], Retrain]] = {
    "weights": lambda k: rewind_weights,  # noqa: ARG005 - the trunk is what the dense network starts from
    "learning-rate": rewind_learning_rate,
    "fine-tuning": fine_tune,
}

SCORED_BATCHES = 20
"""The number of batches for scores that need training examples."""


class Experiment:
    """The studies of a recipe. Raises `InputError` for anything that would fail later; see `set_up`."""

    def __init__(self, recipe: Recipe, data_dir: str | Path | None = None) -> None:
        self.recipe = recipe
        self._data_dir = data_dir
        self._setup = set_up(recipe, data_dir)
        self._target = set_up_transfer(self._setup, data_dir) if recipe.transfer else None
        recipe.search_method.search(self._context(0), self.dense(0))  # raises for options that do not fit

    @property
    def matrix_weights(self) -> int:
        """The number of all matrix weights of the network, prunable or not."""
        return self._setup.matrix_weights

    def studies(self) -> list[Study[None]]:
        """One study for each replicate, in order."""
        return [self.study(replicate) for replicate in range(self.recipe.replicates)]

    def study(self, replicate: int) -> Study[None]:
        """Search for tickets, then train all controls, transfer the tickets, and measure stability."""
        recipe, method, whole = self.recipe, self.recipe.search_method, self.dense(replicate)
        k = self._setup.rewind_to
        if k is None:
            k = yield from smallest_stable(whole, self._interpolation(replicate))
        dense = (yield from train_trunk(whole, k)) if recipe.rewind.method == "weights" else whole
        context = self._context(replicate, k)
        tickets = yield from method.search(context, dense)

        def seed_of(control: str, level: int, draw: int) -> int:
            return context.derive_seed(Purpose[control.upper()], level, draw)

        for name, control in recipe.controls.items():
            seed = functools.partial(seed_of, name)
            plan = ControlPlan(
                tickets, control.draws, seed, control.levels, context.prune, context.retrain, method.mask_changes
            )
            yield from CONTROLS[name](plan)
        if recipe.transfer and self._target:
            seed = functools.partial(seed_of, "transfer_random")
            target = self._target.dense(replicate)
            yield from transfer(tickets, target, recipe.transfer.levels, recipe.transfer.draws, seed)
        if self._setup.candidates and self._setup.rewind_to is not None:
            yield from all_candidates(whole, self._interpolation(replicate))

    def dense(self, replicate: int) -> Run:
        """The dense network's run. Each replicate has its own initial weights, validation split and batch order."""
        return self._setup.dense(replicate)

    kinds = former_attribute("kinds", "sample_runs")

    @property
    def sample_runs(self) -> list[Run]:
        """One run for each combination of network and data, the dense network's first."""
        dense = self.dense(0)
        others = self.recipe.search_method.other_networks(self._context(0), dense)
        return [dense, *others, *([self._target.dense(0)] if self._target else [])]

    def _context(self, replicate: int, k: int = 0) -> MethodContext:
        recipe = self.recipe

        def inputs(outcome: Outcome, run: BaseRun, level: int) -> ScoreInputs:
            assert isinstance(run, Run)
            return self._score_inputs(run, outcome, derive(recipe.seed, Purpose.SCORE, replicate, level))

        return MethodContext(
            options=recipe.method_options,
            seed=recipe.seed,
            replicate=replicate,
            levels=recipe.search.levels,
            pruner=self._setup.pruner,
            prune=lambda outcome, run, level: self._setup.pruner(inputs(outcome, run, level)),
            retrain=RETRAIN[recipe.rewind.method](k),
            score_inputs=inputs,
            training_batches=self._training_batches,
        )

    def _score_inputs(self, run: Run, outcome: Outcome, seed: int) -> ScoreInputs:
        """The inputs of scores after `run`; networks and batches are made when a score asks for them."""

        @functools.cache
        def trained() -> nn.Module:
            network = build(run.start)
            network.load_state_dict(outcome.final)
            run.mask.apply_(network)
            return network

        return ScoreInputs(
            weights={name: outcome.final[name] for name in run.mask},
            mask=run.mask,
            seed=seed,
            _start=lambda: build(run.start).state_dict(),
            _network=lambda: copy_network(trained()),
            _batches=lambda: self._training_batches(run, run.begin, SCORED_BATCHES),
        )

    def _training_batches(self, run: Run, first: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches `(x, y)` of `count` iterations of the run, without augmentation."""
        train = prepare(run.data, self._data_dir).train
        for indices in batches(run.seed, len(train), run.training.batch_size, first, count):
            yield train[indices]

    def _interpolation(self, replicate: int) -> InterpolationPlan:
        stability = self.recipe.stability
        assert stability is not None
        seeds = [derive(self.recipe.seed, Purpose.STABILITY, replicate, pair) for pair in range(stability.pairs)]
        return InterpolationPlan(self._setup.candidates, seeds, stability.points, stability.tolerance)


def count_runs(recipe: Recipe) -> int:
    """How many runs the studies of `recipe` request if none diverges; with "auto" and for early birds the maximum."""

    def level_count(chosen: list[int] | None) -> int:
        return recipe.search.levels if chosen is None else len(set(chosen))

    count = 1 + recipe.search.levels + recipe.search_method.extra_runs(recipe.method_options)
    count += sum(control.draws * level_count(control.levels) for control in recipe.controls.values())
    if recipe.transfer:
        count += 1 + (1 + recipe.transfer.draws) * level_count(recipe.transfer.levels)
    trunks = {recipe.rewind.to} if recipe.rewind.method == "weights" else set()
    if recipe.stability:
        trunks |= set(recipe.stability.candidates)
        count += len(recipe.stability.candidates) * recipe.stability.pairs * recipe.stability.points
    return recipe.replicates * (count + len(trunks - {Duration(), AUTO}))  # a trunk of no iterations is not trained
