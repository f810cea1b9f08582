"""Experiment: a recipe made into studies, one for each replicate."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tombola.experiments.method_options import IN_TRAINING
from tombola.experiments.methods import METHODS, MethodContext, extra_runs, scored
from tombola.experiments.recipe import Recipe
from tombola.experiments.sections import SearchSection
from tombola.pruning.mask import Mask
from tombola.pruning.scopes import RATE
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun, Run
from tombola.studies.controls import CONTROLS, ControlPlan, Seed
from tombola.studies.request import Study
from tombola.studies.rewinding import Retrain, fine_tune, rewind_learning_rate, rewind_weights, rewound_to
from tombola.studies.search import Prune, iterative_search, one_shot_search
from tombola.studies.stability import InterpolationPlan, all_candidates, smallest_stable
from tombola.studies.transfer import transfer
from tombola.utils.duration import Duration
from tombola.utils.errors import InputError
from tombola.utils.seeds import Purpose, derive
from tombola.utils.text import first_line
from tombola.zoo.batches import batches
from tombola.zoo.datasets import prepare
from tombola.zoo.datasets.columns import Columns
from tombola.zoo.datasets.description import Data
from tombola.zoo.datasets.registry import load
from tombola.zoo.datasets.split import check_inputs, training_examples
from tombola.zoo.models import build, describe
from tombola.zoo.models.description import Network, Start

SCORED_BATCHES = 20
"""How many batches scores that look at examples are given."""


def expected_runs(recipe: Recipe) -> int:
    """How many runs the studies of `recipe` ask for, if none diverges."""
    levels = recipe.search.levels
    controls = sum(
        control.draws * (levels if control.levels is None else len(set(control.levels)))
        for control in recipe.controls.values()
    )
    return recipe.replicates * (1 + levels + controls + extra_runs(recipe) + _runs_besides(recipe))


def _runs_besides(recipe: Recipe) -> int:
    """How many runs of one replicate are neither tickets nor controls, nor of a method; with `auto`, at most."""
    trunks = set()
    if recipe.rewind.method == "weights" and isinstance(recipe.rewind.to, Duration):
        trunks.add(recipe.rewind.to)
    lines = 0
    if recipe.stability:
        trunks |= set(recipe.stability.candidates)
        lines = len(recipe.stability.candidates) * recipe.stability.pairs * recipe.stability.points
    transferred = 0
    if to := recipe.transfer:
        transferred = 1 + (1 + to.draws) * (recipe.search.levels if to.levels is None else len(set(to.levels)))
    return lines + len(trunks - {Duration()}) + transferred


class Experiment:
    """What a recipe asks for. Its data is loaded and its network built once, so that mistakes show at once.

    Raises `InputError` for whatever would not work: unknown names, data that is missing or unfit, a network
    that does not take the data, more levels than a layer can bear.
    """

    def __init__(self, recipe: Recipe, data_dir: Path | None = None) -> None:
        self.recipe = recipe
        self._data_dir = data_dir
        columns = Columns(recipe.data.image, recipe.data.label, recipe.data.size)
        dataset = load(recipe.data.name, data_dir, columns)
        examples = training_examples(dataset, recipe.data.validation, recipe.data.fraction)
        if examples < recipe.training.batch_size:
            raise InputError(
                f"training.batch_size: should be at most the {examples:,} training examples that are left "
                f"of {len(dataset.y_train):,} after data.validation and data.fraction, "
                f"not {recipe.training.batch_size:,}"
            )
        try:
            self._training = recipe.training.in_iterations(examples)
        except ValueError as error:
            raise InputError(f"training.{error}") from None
        to = recipe.rewind.to
        self._rewind = self._iteration("rewind.to", to, examples) if isinstance(to, Duration) else None
        candidates = recipe.stability.candidates if recipe.stability else []
        self._candidates = [self._iteration("stability.candidates", k, examples) for k in candidates]
        if self._candidates != sorted(set(self._candidates)):
            raise InputError(f"stability.candidates: should be in order, not {', '.join(map(str, candidates))}")
        self._digest = dataset.digest
        check_inputs(dataset, self._data(seed=0))
        self._like: Network | None = None
        self._network = describe(recipe.model.name, recipe.model.options, dataset.inputs, dataset.classes)
        network = build(self._start(seed=0))
        _check_output(network, self._network, recipe.training.batch_size)
        self._full = Mask.full(network)
        if not self._full:
            raise InputError(f'model.name: "{recipe.model.name}" has no linear or convolutional layer to prune')
        self._pruner = recipe.search.pruner(network)
        try:
            self._pruner.check_rounds(self._full, recipe.search.levels)
        except InputError as error:
            raise InputError(f"search.levels: {error}") from None
        self._target = self._elsewhere(dataset.inputs) if recipe.transfer else None
        if make := METHODS.get(recipe.search.method):
            make(self._means(0), self.dense(0))  # what does not fit is said now

    def studies(self) -> list[Study[None]]:
        """One study for each replicate, in order."""
        return [self.study(replicate) for replicate in range(self.recipe.replicates)]

    def study(self, replicate: int) -> Study[None]:
        """The search for tickets, then the controls of every ticket found, then the stability of the network."""
        recipe = self.recipe
        pruning = self._pruning(replicate)
        retrain: Retrain = rewind_weights
        dense = whole = self.dense(replicate)
        if self._rewind is None:
            k = yield from smallest_stable(whole, self._walks(replicate))
        else:
            k = self._rewind
        if recipe.rewind.method == "weights":
            dense = yield from rewound_to(whole, k)
        else:
            retrain = {"learning-rate": rewind_learning_rate, "fine-tuning": fine_tune}[recipe.rewind.method](k)
        if make := METHODS.get(recipe.search.method):
            tickets = yield from make(self._means(replicate), dense)
        else:
            search = one_shot_search if recipe.search.at_once else iterative_search
            tickets = yield from search(dense, recipe.search.levels, pruning, retrain)
        for name, control in recipe.controls.items():
            drawing, pruned = self._drawing(name, replicate), recipe.search.method in IN_TRAINING
            plan = ControlPlan(tickets, control.draws, drawing, control.levels, pruning, retrain, pruned)
            yield from CONTROLS[name](plan)
        if recipe.transfer and self._target:
            drawing = self._drawing("transfer_random", replicate)
            target = self._target.dense(replicate)
            yield from transfer(tickets, target, recipe.transfer.levels, recipe.transfer.draws, drawing)
        if self._rewind is not None and self._candidates:
            yield from all_candidates(whole, self._walks(replicate))

    @property
    def kinds(self) -> list[Run]:
        """One run of each kind of network and data that the studies ask for, the dense network's first."""
        dense = self.dense(0)
        scores = [scored(self._means(0), dense)] if self.recipe.search.method == "edge-popup" else []
        return [dense, *scores, *([self._target.dense(0)] if self._target else [])]

    def dense(self, replicate: int) -> Run:
        """The dense network's run. Each replicate has its own initial weights, validation split and batch order."""
        recipe = self.recipe
        return Run(
            start=self._start(derive(recipe.seed, Purpose.WEIGHTS, replicate)),
            mask=self._full,
            data=self._data(derive(recipe.seed, Purpose.SPLIT, replicate)),
            training=self._training,
            seed=derive(recipe.seed, Purpose.TRAINING, replicate),
        )

    def _data(self, seed: int) -> Data:
        return Data(**self.recipe.data.model_dump(), digest=self._digest, seed=seed)

    def _iteration(self, where: str, length: Duration, examples: int) -> int:
        """A length in iterations, before the end of the training."""
        iteration = length.iterations_of(examples, self._training.batch_size)
        if iteration >= self._training.length.iterations:
            raise InputError(
                f"{where}: should be before the end of training, {self.recipe.training.length}, not {length}"
            )
        return iteration

    def _walks(self, replicate: int) -> InterpolationPlan:
        stability = self.recipe.stability
        assert stability is not None
        seeds = [derive(self.recipe.seed, Purpose.STABILITY, replicate, pair) for pair in range(stability.pairs)]
        return InterpolationPlan(self._candidates, seeds, stability.points, stability.tolerance)

    def _start(self, seed: int) -> Start:
        return Start(network=self._network, seed=seed, like=self._like)

    def _elsewhere(self, inputs: tuple[int, ...]) -> Experiment:
        """The dense network on the data that tickets are transferred to; nothing is searched there."""
        transfer = self.recipe.transfer
        assert transfer is not None
        unsearched = SearchSection(levels=0, rate=RATE)
        there = {"data": transfer.data, "transfer": None, "stability": None, "search": unsearched}
        try:
            target = Experiment(self.recipe.model_copy(update=there), self._data_dir)
        except InputError as error:
            raise InputError(f"transfer: {error}") from None
        if target._network.inputs != inputs:
            raise InputError(
                f"transfer.data: examples should have the shape {inputs} of those of the search, not "
                f"{target._network.inputs}"
            )
        if target._network != self._network:
            target._like = self._network
        return target

    def _means(self, replicate: int) -> MethodContext:
        pruning, grounds = self._pruning(replicate), self._grounds(replicate)
        return MethodContext(self.recipe, replicate, self._pruner, pruning, grounds, self._examples)

    def _drawing(self, control: str, replicate: int) -> Seed:
        """The seeds of what a control draws; there are none of one that draws nothing."""

        def seed(level: int, draw: int) -> int:
            return derive(self.recipe.seed, Purpose[control.upper()], replicate, level, draw)

        return seed

    def _pruning(self, replicate: int) -> Prune:
        grounds = self._grounds(replicate)
        return lambda outcome, run, level: self._pruner(grounds(outcome, run, level))

    def _grounds(self, replicate: int) -> Callable[[Outcome, BaseRun, int], ScoreInputs]:
        def grounds(outcome: Outcome, run: BaseRun, level: int) -> ScoreInputs:
            assert isinstance(run, Run)
            trained = functools.cache(lambda: self._trained(run, outcome))
            return ScoreInputs(
                weights={name: outcome.final[name] for name in run.mask},
                mask=run.mask,
                seed=derive(self.recipe.seed, Purpose.SCORE, replicate, level),
                _start=lambda: build(run.start).state_dict(),
                _network=lambda: copy.deepcopy(trained()),
                _batches=lambda: self._examples(run, run.begin, SCORED_BATCHES),
            )

        return grounds

    def _trained(self, run: Run, outcome: Outcome) -> nn.Module:
        network = build(run.start)
        network.load_state_dict(outcome.final)
        run.mask.apply_(network)
        return network

    def _examples(self, run: Run, first: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """So many batches that the run trained on, their images as they are without augmentation."""
        train = prepare(run.data, self._data_dir).train
        for order in batches(run.seed, len(train), run.training.batch_size, first, count):
            yield train[order]


@torch.no_grad()
def _check_output(network: nn.Module, described: Network, batch_size: int) -> None:
    """Refuse a network that does not give one number per class for the data's examples, evaluating or training."""
    for training, examples in ((False, 2), (True, min(2, batch_size))):
        try:
            with torch.random.fork_rng(devices=[]):
                output: Any = network.train(training)(torch.zeros(examples, *described.inputs))
        except Exception as error:  # whatever a network of the user's raises
            raise InputError(
                f'model: "{described.name}" does not take {examples} examples of shape {described.inputs}'
                f"{' while training' if training else ''}: {first_line(error)}"
            ) from error
        shape, wanted = tuple(getattr(output, "shape", ())), (examples, described.classes)
        if shape != wanted:
            given = shape or type(output).__name__
            raise InputError(f'model: "{described.name}" gives {given} for {examples} examples, not {wanted}')
