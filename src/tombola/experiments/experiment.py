"""Experiment: turns a configuration and its workload into studies, one for each replicate."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Self

from tombola.experiments.mask_source import ExactMasks, MaskSource
from tombola.experiments.methods.search_method import MethodContext
from tombola.experiments.methods.swamp import recompute_for
from tombola.experiments.part import Part
from tombola.experiments.score_inputs import score_inputs
from tombola.experiments.search_config import SearchConfig
from tombola.experiments.sections import AUTO, MARK, PoolsSection
from tombola.experiments.workload import Workload
from tombola.pruning.exchangeable_units import ExchangeableUnits, UnitPermutation
from tombola.pruning.mask import Mask
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.runs.initial_state import no_stored_states
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.studies.baseline import train_baselines
from tombola.studies.controls import CONTROLS, SECOND_DENSE_CONTROLS, ControlPlan
from tombola.studies.lines import final_figure
from tombola.studies.lottery_pools import PoolPlan, lottery_pools
from tombola.studies.request import RunRequest, Study
from tombola.studies.rewinding import (
    Retrain,
    fine_tune,
    rewind_learning_rate,
    rewind_weights,
    train_to_mark,
    train_trunk,
)
from tombola.studies.stability import InterpolationPlan, all_candidates, smallest_stable
from tombola.studies.ticket_lines import count_ticket_lines, ticket_lines
from tombola.studies.transfer import transfer
from tombola.utils.duration import Duration
from tombola.utils.seeds import Purpose, derive

RETRAIN: dict[str, Callable[[int], Retrain]] = {
    "weights": lambda k: rewind_weights,  # noqa: ARG005 - the trunk is what the dense network starts from
    "learning-rate": rewind_learning_rate,
    "fine-tuning": fine_tune,
}


class Experiment:
    """The studies of a configuration. If `target` is given, tickets are also trained on its data."""

    def __init__(
        self,
        config: SearchConfig,
        workload: Workload,
        rewind_to: int | None = 0,
        candidates: Sequence[int] = (),
        target: Workload | None = None,
    ) -> None:
        """`rewind_to` is an iteration; None if a mark or stability decides. `candidates` are the iterations whose
        stability is measured."""
        self.config = config
        self.workload = workload
        self.replicates = range(config.replicates)
        """The replicates that are studied."""
        self._rewind_to = rewind_to
        self._candidates = candidates
        self._target = target
        self._masks: MaskSource = ExactMasks()
        if "permuted" in config.controls:
            _ = self._units  # a network whose units cannot be permuted is found before training

    def with_masks(self, masks: MaskSource) -> Self:
        """The same experiment, with masks made by `masks`."""
        changed = copy.copy(self)
        changed._masks = masks
        return changed

    def only(self, part: Part) -> Self:
        """The same experiment with only a part of its replicates. Raises `InputError` if there are more parts than
        replicates."""
        changed = copy.copy(self)
        changed.replicates = part.replicates(self.config.replicates)
        return changed

    def studies(self) -> list[Study[None]]:
        """One study for each of `replicates`, in order."""
        return [self.study(replicate) for replicate in self.replicates]

    def study(self, replicate: int) -> Study[None]:
        """Search for tickets, then train all controls and baselines, transfer and pool the tickets, and measure
        stability."""
        config, method = self.config, self.config.search_method
        whole: Any = self.dense(replicate)
        dense, k = yield from self._rewound(replicate, whole)
        context = self._context(replicate, k)
        tickets = yield from method.search(context, dense)

        def seed_of(control: str, level: int, draw: int) -> int:
            return context.derive_seed(Purpose[control.upper()], level, draw)

        for name, control in config.controls.items():
            plan = ControlPlan(
                tickets,
                control.draws,
                functools.partial(seed_of, name),
                control.levels,
                context.prune,
                context.retrain,
                method.mask_changes,
                functools.partial(self.workload.initial_state, whole.start, no_stored_states),
                self._masks.random_mask,
                self.workload.pruner.structure,
                self._match,
            )
            yield from CONTROLS[name](plan)
        yield from train_baselines(self.workload.baselines(replicate))
        if config.transferred_to and self._target:
            section, seed = config.transferred_to, functools.partial(seed_of, "transfer_random")
            target: Any = self._target.dense(replicate)
            structure = self.workload.pruner.structure
            yield from transfer(
                tickets, target, section.levels, section.draws, seed, self._masks.random_mask, structure
            )
        if config.pooled:
            yield from lottery_pools(self._pools(config.pooled, dense, tickets))
        if self._candidates and config.rewind.to != AUTO:
            yield from all_candidates(whole, self._interpolation(replicate))
        if config.stability and config.stability.tickets:
            lines = self._interpolation(replicate)
            yield from ticket_lines(tickets, lines.seeds, lines.points, lines.evaluate_ends)

    @functools.cached_property
    def _units(self) -> ExchangeableUnits:
        return ExchangeableUnits.of(self.workload.prunable)

    def _match(self, first: Outcome, second: Outcome) -> UnitPermutation:
        return self._masks.match(self._units, first, second)

    def _rewound(self, replicate: int, whole: Any) -> Study[tuple[Any, int]]:
        """The dense network's run from iteration k on, to which tickets are rewound, and k."""
        to = self.config.rewind.to
        if to == MARK:
            return (yield from train_to_mark(whole))
        k = self._rewind_to
        if k is None:
            k = yield from smallest_stable(whole, self._interpolation(replicate))
        return (yield from train_trunk(whole, k)) if self.config.rewind.method == "weights" else whole, k

    def dense(self, replicate: int) -> BaseRun:
        """The dense network's run. Each replicate has its own seeds."""
        return self.workload.dense(replicate)

    def _context(self, replicate: int, k: int = 0) -> MethodContext:
        config, workload = self.config, self.workload

        def seed(level: int) -> int:
            return derive(config.seed, Purpose.SCORE, replicate, level)

        def inputs(outcome: Outcome, run: BaseRun, level: int) -> ScoreInputs:
            return score_inputs(workload, run, outcome, seed(level))

        def pruned(outcome: Outcome, run: BaseRun, level: int) -> Mask:
            return self._masks.prune(workload, run, outcome, seed(level))

        return MethodContext(
            options=config.method_options,
            seed=config.seed,
            replicate=replicate,
            levels=config.search.levels,
            pruner=workload.pruner,
            prune=pruned,
            retrain=RETRAIN[config.rewind.method](k),
            score_inputs=inputs,
            training_batches=workload.training_batches,
        )

    def _pools(self, section: PoolsSection, dense: Any, tickets: Sequence[RunRequest]) -> PoolPlan:
        prune = functools.partial(self._masks.prune_between, self.workload.pruner, dense.mask)
        statistics = recompute_for(dense, section.statistics)
        return PoolPlan(tickets, section.shares, section.candidates, prune, self._validation_error, statistics)

    def _interpolation(self, replicate: int) -> InterpolationPlan:
        stability = self.config.stability
        assert stability is not None
        seeds = [derive(self.config.seed, Purpose.STABILITY, replicate, pair) for pair in range(stability.pairs)]
        return InterpolationPlan(
            self._candidates,
            seeds,
            stability.points,
            stability.tolerance,
            self._validation_errors,
            self.config.worst_barrier,
            self.config.evaluates_ends,
        )

    def _validation_error(self, outcome: Outcome) -> float | None:
        """The error of the final weights on the validation examples; None for a made-up outcome."""
        if outcome.measures.diverged:
            return math.inf
        errors = self._validation_errors([outcome])
        return None if errors is None else errors[0]

    def _validation_errors(self, line: Sequence[Outcome]) -> list[float] | None:
        if not all(outcome.measures.figures for outcome in line):  # they are made up
            return None
        metric = self.config.barrier_metric(outcome.measures for outcome in line)
        values = [final_figure(outcome, metric.at_end) for outcome in line]
        return metric.errors(values)


def count_runs(config: SearchConfig, part: Part | None = None) -> int:
    """How many runs the studies of `config`, or of a part of it, request if none diverges; the maximum with "auto"
    and for early birds. Raises `InputError` if there are more parts than replicates."""

    def level_count(chosen: list[int] | None) -> int:
        return config.search.levels if chosen is None else len(set(chosen))

    count = 1 + config.search.levels + config.search_method.extra_runs(config.method_options)
    count += (1 + config.search.levels) * config.search_method.runs_per_level(config.method_options)
    count += sum(control.draws * level_count(control.levels) for control in config.controls.values())
    count += sum(control.draws for name, control in config.controls.items() if name == "permuted")  # second networks
    count += len(config.baseline_labels[1:])
    if config.transferred_to:
        count += 1 + (1 + config.transferred_to.draws) * level_count(config.transferred_to.levels)
    if config.pooled:
        count += config.pooled.count_runs(config.search.levels)
    trunks = {config.rewind.to} if config.rewind.method == "weights" else set()
    if trunks - {Duration()}:
        count += max(
            (config.controls[name].draws for name in SECOND_DENSE_CONTROLS if name in config.controls), default=0
        )
    if config.stability:
        trunks |= set(config.stability.candidates)
        pairs, lines = config.stability.pairs, len(config.stability.candidates) * config.stability.pairs
        lines += count_ticket_lines(config.search.levels, pairs) if config.stability.tickets else 0
        count += lines * (config.stability.points + 2 * config.evaluates_ends)
    count += len(trunks - {Duration(), AUTO})  # a trunk without iterations is not trained
    return count * len((part or Part()).replicates(config.replicates))
