"""A ticket beside the dense network, its controls and other methods, all with the same number of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tombola.experiments.compared_methods import SEARCH, ComparedMethod
from tombola.experiments.metric import Metric
from tombola.experiments.recipe import Recipe
from tombola.experiments.results import Results
from tombola.experiments.results_schema import Row
from tombola.experiments.training_cost import TrainingCosts
from tombola.stats.holm import holm
from tombola.stats.paired_test import PairedTest
from tombola.stats.summary import MeasureSummary, SummaryModel, mean_interval
from tombola.studies.controls import CONTROLS
from tombola.studies.request import INTERMEDIATE, UNCOMPARED

SUPERMASK = "supermask"
"""The branch of an untrained subnetwork that a method found by training scores."""

UNTRAINED_MASKS = ("random", "random_global", "large_init")
"""Controls whose masks need no training. With a global search, the first and the last have the ticket's number of
weights in each layer, which only its search tells."""

Kind = Literal["dense", "ticket", "control", "method"]


@dataclass(frozen=True)
class MethodResults:
    """One finished experiment of a comparison."""

    method: ComparedMethod
    results: Results
    costs: TrainingCosts

    def rows(self, branch: str, level: int | None = None) -> list[Row]:
        """The rows of a branch at a level, by default the compared one."""
        return self.results.rows_of(branch, self.method.level if level is None else level)


class TicketDifference(SummaryModel):
    """The paired difference of a row from the ticket, in the judged metric at early stop."""

    mean: float
    low: float | None
    """The bounds of the confidence interval; None if there are too few replicates."""
    high: float | None
    p: float
    """The two-sided p-value of "there is no difference"."""
    p_holm: float
    """The same, corrected for the number of rows (Holm 1979)."""
    replicates: int
    exact: bool
    """Whether the test is the exact sign-flip test; otherwise it is Student's t test."""


class MethodRow(SummaryModel):
    """A row of the comparison."""

    name: str
    kind: Kind
    ticket: bool
    """Whether it is a lottery ticket: a mask trained from its initial, or rewound, weights."""
    no_ticket: str | None
    """Why it is not a lottery ticket, in a few words."""
    budget: float | None
    """The training cost that sets the length of training, in dense trainings; None if the length is the recipe's."""
    length: float
    """The length of its training, in units of the recipe's."""
    weights: int
    """The number of weights left, the mean over replicates."""
    weights_left: float
    runs: int
    diverged: int
    at_stop: MeasureSummary
    """The judged metric at early stop."""
    at_end: MeasureSummary
    """The same at the end of training."""
    difference: TicketDifference | None
    """None of the ticket itself, and with fewer than two replicates."""
    training_cost: float
    """The multiply-adds of its training, in dense trainings; the mean over replicates."""
    search_cost: float
    """Those of everything that had to be trained before to find the mask."""

    @property
    def cost(self) -> float:
        """The multiply-adds of search and training, in dense trainings."""
        return self.training_cost + self.search_cost


class SkippedMethod(SummaryModel):
    """A row that the recipe does not allow."""

    name: str
    reason: str


class MethodComparison(SummaryModel):
    """The rows, the dense network and the ticket first."""

    recipe: str
    level: int
    level_chosen: bool
    """Whether the level was chosen by the results that are compared, which favours the ticket."""
    replicates: int
    confidence: float
    metric: Metric
    rows: list[MethodRow]
    skipped: list[SkippedMethod]


def search_cost(costs: TrainingCosts, level: int) -> float:
    """What the ticket of a level costs in the first replicate, its search included."""
    position = 0, "ticket", level, 0
    return costs.training(position) + costs.search(position, CONTROLS, 0)


@dataclass(frozen=True)
class _Source:
    """The rows of results that make a row of the comparison."""

    name: str
    kind: Kind
    no_ticket: str | None
    of: MethodResults
    rows: Sequence[Row]


def compare_methods(
    recipe: Recipe,
    level: int,
    compared: Mapping[str, MethodResults],
    skipped: Mapping[str, str],
    level_chosen: bool = False,
) -> MethodComparison:
    """Compare the finished experiments, by name, with the ticket of `recipe` at `level`."""
    metric, confidence = recipe.judged([]), recipe.verdict.confidence
    sources = list(_sources(compared))
    ticket = next(source for source in sources if source.kind == "ticket")
    reference = _by_replicate(ticket.rows, metric.at_stop)
    tests = {
        source.name: test
        for source in sources
        if source is not ticket
        and (test := _paired(_by_replicate(source.rows, metric.at_stop), reference, confidence))
    }
    p_values = {name: min(1.0, 2 * min(test.p_above(0.0), test.p_below(0.0))) for name, test in tests.items()}
    corrected = dict(zip(p_values, holm([*p_values.values()]), strict=True))
    global_search = recipe.search.scope == "global"
    rows = []
    for source in sources:
        test, method, weights = tests.get(source.name), source.of.method, [row.weights for row in source.rows]
        difference = (
            None
            if test is None
            else TicketDifference(
                mean=test.estimate,
                low=test.low,
                high=test.high,
                p=p_values[source.name],
                p_holm=corrected[source.name],
                replicates=test.n,
                exact=test.exact,
            )
        )
        training, search = _costs(source, ticket, global_search)
        rows.append(
            MethodRow(
                name=source.name,
                kind=source.kind,
                ticket=source.no_ticket is None and source.kind in ("ticket", "method"),
                no_ticket=source.no_ticket,
                budget=method.budget,
                length=method.length,
                weights=round(float(np.mean(weights))),
                weights_left=float(np.mean([row.weights_left for row in source.rows])),
                runs=len(source.rows),
                diverged=sum(row.measures.diverged for row in source.rows),
                at_stop=_measure(source.rows, metric.at_stop, confidence),
                at_end=_measure(source.rows, metric.at_end, confidence),
                difference=difference,
                training_cost=training,
                search_cost=search,
            )
        )
    return MethodComparison(
        recipe=recipe.name,
        level=level,
        level_chosen=level_chosen,
        replicates=recipe.replicates,
        confidence=confidence,
        metric=metric,
        rows=rows,
        skipped=[SkippedMethod(name=name, reason=reason) for name, reason in skipped.items()],
    )


def _sources(compared: Mapping[str, MethodResults]) -> Iterator[_Source]:
    """The sources of all rows, in order."""
    search = compared[SEARCH]
    yield _Source("dense", "dense", None, search, search.rows("ticket", 0))
    yield _Source("ticket", "ticket", search.results.config.no_ticket_reason, search, search.rows("ticket"))
    for name, each in compared.items():
        own = {row.branch for row in each.results.rows if row.level == each.method.level}
        for branch in (*CONTROLS, *sorted(own - {*CONTROLS, "ticket", *INTERMEDIATE, *UNCOMPARED}, key=str)):
            if branch in own:
                yield _Source(_named(name, branch), "control", None, each, each.rows(branch))
        if name == SEARCH:
            continue
        if SUPERMASK in own:
            yield _Source(f"{name}, untrained", "method", "weights not trained", each, each.rows(SUPERMASK))
        yield _Source(name, "method", each.results.config.no_ticket_reason, each, each.rows("ticket"))


def _named(name: str, branch: str) -> str:
    return branch if name == SEARCH else f"{name}, {branch}"


def _costs(source: _Source, ticket: _Source, global_search: bool) -> tuple[float, float]:
    """The mean costs of training and search, in dense trainings."""
    costs, method = source.of.costs, source.of.method
    one_level = method.recipe.search_method.one_level
    found = []
    for row in source.rows:
        position = row.replicate, row.branch, row.level, row.draw
        own = costs.training(position)
        if source.kind == "dense" or (
            row.branch in UNTRAINED_MASKS and not (global_search and row.branch != "random_global")
        ):
            search = 0.0
        elif row.branch == "one_shot":
            search = costs.training((row.replicate, "ticket", 0, 0))
        elif source.kind == "control" and source.of is ticket.of:
            search = costs.search_of_control(position, CONTROLS)
        else:
            search = costs.search(position, CONTROLS, 1 if one_level else 0)
        found.append((own, search))
    training, search = np.mean(found, axis=0)
    return float(training), float(search)


def _by_replicate(rows: Sequence[Row], name: str) -> dict[int, float]:
    """A measure of the runs that did not diverge; draws are averaged."""
    found: dict[int, list[float]] = {}
    for row in rows:
        value = None if row.measures.diverged else row.measures[name]
        if value is not None:
            found.setdefault(row.replicate, []).append(value)
    return {replicate: float(np.mean(values)) for replicate, values in found.items()}


def _measure(rows: Sequence[Row], name: str, confidence: float) -> MeasureSummary:
    values = [*_by_replicate(rows, name).values()]
    return MeasureSummary(values=values, interval=mean_interval(values, confidence) if values else None)


def _paired(values: Mapping[int, float], reference: Mapping[int, float], confidence: float) -> PairedTest | None:
    """The test of the difference from the reference over the replicates that have both; None for fewer than two. Each
    bound has half the error rate, as the interval is two-sided."""
    both = sorted(values.keys() & reference.keys())
    if len(both) < 2:
        return None
    alpha = (1 - confidence) / 2
    return PairedTest.difference([values[r] for r in both], [reference[r] for r in both], alpha)
