"""LevelTable: the results of a search with the user's own training function, level by level, and its listener."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tombola.engines.custom.engine import METRIC_PREFIX
from tombola.experiments.results_schema import Row
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.stats.paired_test import PairedTest
from tombola.stats.summary import Interval, mean_interval
from tombola.stats.verdict import FEWEST_REPLICATES
from tombola.studies.conductor import Listener
from tombola.studies.request import RunRequest
from tombola.utils.former_names import former_attribute

COLUMNS = ("replicate", "level", "branch", "draw", "weights", "weights_total")
"""The fields of `Row` that `LevelTable.rows` gives."""

MatchState = Literal[
    "dense", "matches", "worse", "cannot tell", "within the margin", "below the margin", "diverged", "not evaluated"
]


@dataclass(frozen=True)
class LevelResult:
    """The tickets of one level, compared with the dense network."""

    level: int
    weights_left: float
    """The fraction of prunable weights left, the mean over replicates."""
    state: MatchState
    figure: Interval | None = None
    """The judged figure: its mean and confidence interval."""
    difference: float | None = None
    """The mean difference of the judged figure, ticket minus dense."""
    low: float | None = None
    """The lower bound of the difference; None if there are too few replicates."""
    behind: int | None = None
    """The denser level that does not match, if this one would match by itself."""
    weights_left_of_all: float | None = None
    """The fraction left of all matrix weights, prunable or not; None if unknown."""

    @property
    def matches(self) -> bool:
        """Whether it matches the dense network, within the margin; with too few replicates, whether the mean does."""
        return self.state in ("matches", "within the margin")


@dataclass
class LevelTable:
    """The table of levels. Tickets match if a paired test over replicates shows that their judged figure is at most
    `margin` below the dense network's. Levels are tested from dense to sparse; testing stops at the first that does
    not match (see `tombola.stats.verdict`). With fewer than three replicates only the means are compared."""

    margin: float
    confidence: float = 0.95
    results: list[Row] = field(default_factory=list)
    """One row for each training."""
    matrix_weights: int | None = None
    """The number of all matrix weights of the network, prunable or not; None if unknown."""

    answers = former_attribute("answers", "results")

    @property
    def judged(self) -> str | None:
        """The name of the judged figure: the first that `evaluate` or `train` returned."""
        return next((name for row in self.results for name in row.figures), None)

    @property
    def replicates(self) -> int:
        """The number of replicates."""
        return len({row.replicate for row in self.results})

    def __iter__(self) -> Iterator[LevelResult]:
        """The levels, from dense to sparse."""
        dense, first = self.values("ticket", 0), None
        for level in sorted({row.level for row in self.results if row.branch == "ticket"}):
            found = replace(self._judge(level, dense), weights_left_of_all=self._left_of_all(level))
            if found.matches and first is not None:
                found = replace(found, state="cannot tell", behind=first)
            elif level and first is None and not found.matches:
                first = level
            yield found

    def __getitem__(self, level: int) -> LevelResult:
        """One level. Raises `IndexError` if there is none of that number."""
        for found in self:
            if found.level == level:
                return found
        raise IndexError(level)

    @property
    def sparsest_match(self) -> LevelResult | None:
        """The sparsest level that matches the dense network."""
        return max((found for found in self if found.matches), key=lambda found: found.level, default=None)

    def values(self, branch: str, level: int) -> dict[int, float]:
        """The judged figure by replicate, the mean over draws."""
        drawn: dict[int, list[float]] = {}
        judged = self.judged or ""
        for row in self.of(branch, level):
            if judged in row.figures:
                drawn.setdefault(row.replicate, []).append(row.figures[judged])
        return {replicate: sum(values) / len(values) for replicate, values in sorted(drawn.items())}

    def of(self, branch: str, level: int) -> list[Row]:
        """The rows of a branch at a level."""
        return [row for row in self.results if (row.branch, row.level) == (branch, level)]

    @property
    def branches(self) -> list[str]:
        """`ticket`, and the controls."""
        return list(dict.fromkeys(row.branch for row in self.results))

    def rows(self) -> list[dict[str, Any]]:
        """One flat dictionary for each training, for data frames."""
        rows = []
        for result in self.results:
            row = {name: getattr(result, name) for name in COLUMNS}
            row |= {name: getattr(result.measures, name) for name in ("diverged", "iterations")}
            row |= {f"figure {name}" if name in row else name: value for name, value in result.figures.items()}
            rows.append(row)
        return rows

    def _left_of_all(self, level: int) -> float | None:
        left = [row.weights_left_of(self.matrix_weights) for row in self.of("ticket", level)]
        known = [fraction for fraction in left if fraction is not None]
        return sum(known) / len(known) if known else None

    def _judge(self, level: int, dense: dict[int, float]) -> LevelResult:
        """The result of one level, without regard to denser ones."""
        rows, values = self.of("ticket", level), self.values("ticket", level)
        left = sum(row.weights_left for row in rows) / len(rows)
        diverged = any(row.measures.diverged for row in rows)
        if diverged or len(rows) < self.replicates:  # a replicate ended at a denser level
            return LevelResult(level, left, "diverged")
        if not values:
            return LevelResult(level, left, "dense" if level == 0 else "not evaluated")
        figure = mean_interval(list(values.values()), self.confidence)
        both = sorted(values.keys() & dense.keys())
        if level == 0 or not both:
            return LevelResult(level, left, "dense" if level == 0 else "not evaluated", figure)
        paired = PairedTest.difference([values[r] for r in both], [dense[r] for r in both], 1 - self.confidence)
        low = paired.low if paired.n >= FEWEST_REPLICATES else None
        return LevelResult(level, left, self._state(paired), figure, paired.estimate, low)

    def _state(self, paired: PairedTest) -> MatchState:
        if paired.n < FEWEST_REPLICATES:
            return "within the margin" if paired.estimate >= -self.margin else "below the margin"
        if paired.p_above(-self.margin) <= paired.alpha:
            return "matches"
        return "worse" if paired.p_below(-self.margin) <= paired.alpha else "cannot tell"


class LevelTableListener(Listener):
    """Adds every result of a search to the table."""

    def __init__(self, table: LevelTable) -> None:
        self.table = table
        self.tickets: dict[tuple[int, int], BaseRun] = {}
        """The runs of tickets, by (level, replicate)."""

    def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
        """See `Listener`."""
        if request.branch == "trunk" or (request.branch == "ticket" and (request.level, study) in self.tickets):
            return
        if request.branch == "ticket":
            self.tickets[request.level, study] = request.run
        figures = {
            name.removeprefix(METRIC_PREFIX): float(curve[-1])
            for name, curve in outcome.curves.items()
            if name.startswith(METRIC_PREFIX)
        }
        self.table.results.append(Row.of(study, request, outcome, {} if outcome.measures.diverged else figures))
