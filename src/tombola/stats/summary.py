"""The summary of an experiment: levels, branches, intervals and verdicts. Accuracies are fractions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, field_serializer, model_serializer
from scipy.special import stdtrit  # the quantile of Student\'s t; scipy.stats takes a second longer to import

from tombola.experiments.metric import VALIDATION_ACCURACY, Metric
from tombola.experiments.results_schema import EngineTotals, Tally
from tombola.experiments.sections import VerdictSection
from tombola.stats.double_descent_summary import DoubleDescentSummary
from tombola.stats.verdict import VerdictState


@dataclass(frozen=True)
class Interval:
    """A mean and the bounds of its confidence interval; the bounds are None for fewer than two values."""

    mean: float
    low: float | None
    high: float | None


def mean_interval(values: Sequence[float], confidence: float) -> Interval:
    """The mean of `values` with its two-sided Student's t interval of `confidence`, in (0, 1).

    Raises `ValueError` if there are no values.
    """
    if not values:
        raise ValueError("mean_interval needs at least one value")
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, None, None)
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    half = float(stdtrit(len(values) - 1, (1 + confidence) / 2)) * error
    return Interval(mean, mean - half, mean + half)


class SummaryModel(BaseModel):
    """A frozen part of a summary."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, with the keys that `--json` prints."""
        return self.model_dump(by_alias=True)


FEW_REPLICATES = 5
"""With fewer replicates, the interval of a mean is so wide (12.7 standard errors to either side for two values) that
the lowest and the highest value are shown instead."""


class MeasureSummary(SummaryModel):
    """One measure over replicates."""

    values: list[float]
    """One value for each replicate that did not diverge; for a control, the mean over its draws."""
    interval: Interval | None
    """The mean with its confidence interval; None if there are no values."""

    @property
    def spread(self) -> Interval | None:
        """The mean with the bounds that are shown: its interval or, for few values, the lowest and the highest; None
        if there are no values."""
        if self.interval is None or not 2 <= len(self.values) < FEW_REPLICATES:
            return self.interval
        return Interval(self.interval.mean, min(self.values), max(self.values))

    @model_serializer(mode="wrap")
    def _flat(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = dump(self)
        return {"values": fields["values"], **(fields["interval"] or {})}


NOT_MEASURED = MeasureSummary(values=[], interval=None)


class BranchSummary(SummaryModel):
    """One branch of a level: tickets, or a control."""

    runs: int
    diverged: int
    measures: dict[str, MeasureSummary]
    """Measures by name: the figures of `Measures`, `stop_iteration`, and the generalisation gap, `gap_at_stop` and
    `gap`. In JSON they are at the same level as `runs` and `diverged`."""

    def __getitem__(self, name: str) -> MeasureSummary:
        """The measure of this name, without values if there is none."""
        return self.measures.get(name, NOT_MEASURED)

    @model_serializer(mode="wrap")
    def _flat(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = dump(self)
        return {"runs": fields["runs"], "diverged": fields["diverged"], **fields["measures"]}


class DifferenceSummary(SummaryModel):
    """A paired difference, ticket minus other: in the judged metric at early stop, or in the early-stopping
    iteration, relative to the other's."""

    mean: float
    low: float | None
    """One-sided bounds, each with the confidence of the criteria; None if there are too few replicates."""
    high: float | None
    p_not_worse: float
    """The p-value of "the ticket is worse by more than the margin"."""
    p_better: float
    """The p-value of "the ticket is not better"."""
    p_worse: float
    """The p-value of "the ticket is not worse"."""


class MarginTest(SummaryModel):
    """The test of "the ticket is not worse than the dense network by the margin or more", as the verdict made it:
    what it estimates, with the bounds that the same test gives. In the units of the metric or, if the margin is
    relative, as a fraction of the dense network's figure; early stop is always a fraction of the dense network's."""

    mean: float
    low: float | None
    """One-sided bounds, each with the confidence of the test; None if there are too few replicates."""
    high: float | None
    limit: float
    """The difference of a ticket that is worse by exactly the margin."""
    maximize: bool
    """Whether a higher difference is better."""
    relative: bool
    """Whether these are fractions of the dense network's figure."""

    @property
    def bound(self) -> float | None:
        """The bound that has to be on the better side of `limit`."""
        return self.low if self.maximize else self.high

    @property
    def holds(self) -> bool:
        """Whether the bound is on the better side of the limit: exactly if the p-value is at most alpha."""
        return self.bound is not None and (self.bound > self.limit if self.maximize else self.bound < self.limit)


class ComparisonSummary(SummaryModel):
    """Tickets compared with another branch."""

    metric: str = Field(exclude=True)
    """The name of the judged metric; in JSON `difference` is `METRIC_difference`."""
    difference: DifferenceSummary | None
    stop_difference: DifferenceSummary | None
    """None if early stop was not asked for."""

    @model_serializer(mode="wrap")
    def _named(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {f"{self.metric}_difference" if name == "difference" else name: v for name, v in dump(self).items()}


class BaselineComparison(DifferenceSummary):
    """The difference in the judged metric at early stop, ticket minus the best of the dense network's trainings."""

    training: str
    """How that training differs from the others."""
    accurate: bool
    """Whether the metric is, with the confidence of the criteria, worse than that of the best training by at most the
    margin."""
    worse: bool
    """Whether it is, with the same confidence, worse by more than the margin."""


class VerdictSummary(ComparisonSummary):
    """The verdict on a level. See `tombola.stats.verdict.Verdict`."""

    state: VerdictState
    reason: str
    more_replicates: int | None
    advice: str = Field(serialization_alias="instead")
    accurate: bool
    fast: bool | None
    sparse_enough: bool = Field(serialization_alias="few")
    stop_margin: float
    p_better_than_control: float | None
    winning: bool
    won_at: int | None
    """The number of replicates at the planned look at which the level won; all fields are from that look."""
    better_in: list[str] = Field(serialization_alias="better")
    """The measures in which tickets are better than the dense network: the metric, `stop`."""
    metric_test: MarginTest | None = Field(default=None, exclude=True)
    """The tests of the margins, for figures; None without two replicates that have both networks."""
    stop_test: MarginTest | None = Field(default=None, exclude=True)
    """None also if early stop was not asked for."""
    tuned_baseline: BaselineComparison | None = None
    """The comparison with the tuned baseline. `state` does not depend on it. There is no key without a baseline."""

    @model_serializer(mode="wrap")
    def _named(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = super()._named(dump)
        return {name: value for name, value in fields.items() if name != "tuned_baseline" or value is not None}


class LevelSummary(SummaryModel):
    """One level; level 0 is the dense network."""

    level: int
    weights: int
    """The number of weights left."""
    weights_left: float
    """The fraction of prunable weights left."""
    weights_left_of_all: float | None
    """The fraction of all matrix weights left, prunable or not; None if unknown."""
    multiply_adds: float | None
    """In a search by units, the multiply-adds of the weights left for one example, the mean over tickets; None if
    unknown."""
    multiply_adds_left: float | None
    """The same as a fraction of the dense network's."""
    branches: dict[str, BranchSummary]
    verdict: VerdictSummary
    controls: dict[str, ComparisonSummary] = Field(serialization_alias="against")

    @property
    def state(self) -> VerdictState:
        """The verdict: `dense`, `winning`, `not winning` or `cannot tell`."""
        return self.verdict.state


SPLITS = ("train", "validation", "test")


class LineSummary(SummaryModel):
    """The error barriers on lines of one kind. A replicate with a line on which a figure is not finite has a barrier
    of 1 in recipes, and otherwise no value."""

    train_barrier: MeasureSummary
    validation_barrier: MeasureSummary
    test_barrier: MeasureSummary
    replicates: int
    stable: int
    """The number of replicates whose barrier on the validation examples is within the tolerance."""

    def barrier(self, split: str) -> MeasureSummary:
        """The barrier on these examples."""
        found: MeasureSummary = getattr(self, f"{split}_barrier")
        return found


class BarrierSummary(LineSummary):
    """The error barriers between trainings that share k iterations."""

    k: int


class TicketBarrierSummary(SummaryModel):
    """The error barriers on the lines from the tickets of a level."""

    level: int
    predecessor: LineSummary | None
    """The lines to the tickets of the previous level; None for the dense network."""
    order: LineSummary | None
    """The lines to the same tickets, trained in other batch orders."""


class StabilitySummary(SummaryModel):
    """The stability analysis."""

    metric: Metric = VALIDATION_ACCURACY
    """The metric whose barriers these are, in its units."""
    tolerance: float
    candidates: list[BarrierSummary]
    tickets: list[TicketBarrierSummary] = []
    """By level; empty unless lines between tickets were asked for."""
    rewound_to: list[int | None] | None
    """By replicate, the smallest stable k; None unless tickets were rewound to it."""

    @property
    def splits(self) -> list[str]:
        """The examples on which barriers are known: always `validation`; in recipes also `train` and `test`."""
        lines = [
            *self.candidates,
            *(line for each in self.tickets for line in (each.predecessor, each.order) if line),
        ]
        return [s for s in SPLITS if s == "validation" or any(line.barrier(s).values for line in lines)]


class DenseTraining(SummaryModel):
    """One of the trainings of the dense network."""

    training: str
    """How it differs from the others: `lr = 0.1`, or the name of the function."""
    figures: BranchSummary
    without_early_stop: int
    """The number of replicates in which the last evaluation was the best."""


class BaselineSummary(SummaryModel):
    """The tuned baseline: the dense network trained in several ways."""

    trainings: list[DenseTraining]
    """The trainings; tickets are trained like the first."""
    chosen_by: Metric
    """The metric of the validation examples by which the best training is chosen."""
    best: int | None
    """The index of the best training; None if some are not finished, or all diverged."""
    smallest_winning: int | None
    """The last of the winning levels, from dense to sparse, before one that is not as good as the best training."""


class CollapsedLayer(SummaryModel):
    """A layer of a ticket that has no weights left."""

    replicate: int
    level: int
    layer: str


class LookSummary(SummaryModel):
    """How often an experiment is judged while it grows, and what that does to the error rate."""

    planned: bool
    replicates: list[int]
    """The number of replicates at each look: as planned, or otherwise after which the experiment was finished and
    then extended."""
    alpha: list[float]
    """The level at which each statement is tested at each look."""
    error_rate: float
    """The probability that a statement that is just false is accepted at one or more of the looks, by the joint
    normal distribution of the tests."""

    def number(self, replicates: int) -> int:
        """The number of the look after this many replicates, counted from 1."""
        return self.replicates.index(replicates) + 1


class Summary(SummaryModel):
    """The summary of one experiment."""

    recipe: str
    title: str = Field(exclude=True)
    """What the experiment is called above its tables; see `experiment_title`."""
    replicates: int
    finished: bool
    runs: Tally
    expected_runs: int
    """The maximum number of runs of the whole experiment."""
    engines: dict[str, EngineTotals]
    rewind_method: str = Field(serialization_alias="method")
    search_method: str = Field(serialization_alias="search")
    no_ticket: str | None
    """Why no subnetwork of this experiment is a lottery ticket; None if it may be."""
    transfer: str | None
    """The dataset to which tickets were transferred."""
    criteria: VerdictSection
    metric: Metric
    """The judged metric."""
    timed: bool
    """Whether early stop was asked for."""
    copies: list[int]
    """The replicates that are copies of others."""
    looks: LookSummary | None
    """The looks; None if the experiment is judged once."""
    dense_without_early_stop: int = Field(serialization_alias="late")
    """The number of dense networks whose validation loss was lowest at the last iteration."""
    levels: list[LevelSummary]
    stability: StabilitySummary | None
    baseline: BaselineSummary | None
    """The tuned baseline; None if the dense network was only trained like the tickets."""
    double_descent: DoubleDescentSummary | None
    """Whether there is sparse double descent; None unless the recipe has noisy labels or asks for it."""
    smallest_winning: LevelSummary | None
    """The winning level with the fewest weights."""
    collapsed: list[CollapsedLayer]

    @property
    def has_gap(self) -> bool:
        """Whether training accuracy, and so the generalisation gap, is measured, as in recipes."""
        return self.dense is not None and "gap_at_stop" in self.dense.measures

    @property
    def dense(self) -> BranchSummary | None:
        """The dense network."""
        return self.levels[0].branches["ticket"] if self.levels and self.levels[0].level == 0 else None

    @field_serializer("smallest_winning")
    def _size(self, level: LevelSummary | None) -> dict[str, Any] | None:
        size = {"level", "weights", "weights_left", "weights_left_of_all"}
        return None if level is None else level.model_dump(include=size)
