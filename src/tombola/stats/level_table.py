"""LevelTable: the results of a search with the user's own training function, level by level, and its listener."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tombola.engines.custom.engine import METRIC_PREFIX
from tombola.experiments.results_schema import Row
from tombola.pruning.mask import State
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.stats.copies import copied_replicates, copies_text, sketch, tolerances
from tombola.stats.direction import Minimize, check_direction, lower_is_better
from tombola.stats.figure_gaps import figure_gap
from tombola.stats.paired_test import PairedTest
from tombola.stats.summary import Interval, mean_interval
from tombola.stats.verdict import FEWEST_REPLICATES
from tombola.studies.conductor import Listener
from tombola.studies.request import RunRequest
from tombola.utils.former_names import former_attribute

_log = logging.getLogger(__name__)

COLUMNS = ("replicate", "level", "branch", "draw", "weights", "weights_total")
"""The fields of `Row` that `LevelTable.rows` gives."""

MatchState = Literal[
    "dense",
    "matches",
    "worse",
    "cannot tell",
    "within the margin",
    "below the margin",
    "above the margin",
    "diverged",
    "not evaluated",
]
"""Without a test a ticket that does not match is below the margin or, where lower is better, above it."""


@dataclass(frozen=True)
class LevelResult:
    """The tickets of one level, compared with the dense network."""

    level: int
    weights_left: float
    """The fraction of prunable weights left, the mean over replicates."""
    state: MatchState
    figure: Interval | None = None
    """The judged figure: its mean and confidence interval, without bounds if replicates are copies."""
    difference: float | None = None
    """The mean difference of the judged figure, ticket minus dense."""
    low: float | None = None
    """The lower bound of the difference; None if nothing is tested, or lower is better."""
    high: float | None = None
    """The upper bound of the difference, if lower is better."""
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
    """The table of levels. Tickets match if a paired test over replicates shows that their judged figure is less than
    `margin` worse than the dense network's. Levels are tested from dense to sparse; testing stops at the first that
    does not match (see `tombola.stats.verdict`). With fewer than three replicates, or if some are copies of others,
    only the means are compared."""

    margin: float
    confidence: float = 0.95
    results: list[Row] = field(default_factory=list)
    """One row for each training."""
    minimize: Minimize = False
    """Whether lower is better."""
    matrix_weights: int | None = None
    """The number of all matrix weights of the network, prunable or not; None if unknown."""

    answers = former_attribute("answers", "results")

    @property
    def judged(self) -> str | None:
        """The name of the judged figure: the first that `evaluate` or `train` returned."""
        return next((name for row in self.results for name in row.figures), None)

    @property
    def lower_is_better(self) -> bool:
        """Whether lower is better for the judged figure."""
        return lower_is_better(self.judged or "", self.minimize)

    @property
    def copies(self) -> list[int]:
        """The replicates whose dense network or tickets ended in the same weights as those of another replicate."""
        return copied_replicates(row for row in self.results if row.branch == "ticket")

    @property
    def figure_gap(self) -> str:
        """The first training whose judged figure cannot be compared, in a line; empty if there is none."""
        return "" if self.judged is None else figure_gap(self.results, self.judged)

    @property
    def tested(self) -> bool:
        """Whether there are enough replicates for a test, none of them a copy of another."""
        return self.replicates >= FEWEST_REPLICATES and not self.copies

    @property
    def replicates(self) -> int:
        """The number of replicates."""
        return len({row.replicate for row in self.results})

    def __iter__(self) -> Iterator[LevelResult]:
        """The levels, from dense to sparse."""
        first, tested = None, self.tested
        for level in sorted({row.level for row in self.results if row.branch == "ticket"}):
            found = replace(self._judge(level, tested), weights_left_of_all=self._left_of_all(level))
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

    def values(self, branch: str, level: int, figure: str | None = None) -> dict[int, float]:
        """The figure of this name, by default the judged one, by replicate: the mean over draws."""
        drawn: dict[int, list[float]] = {}
        name = figure or self.judged or ""
        for row in self.of(branch, level):
            if name in row.figures:
                drawn.setdefault(row.replicate, []).append(row.figures[name])
        return {replicate: sum(values) / len(values) for replicate, values in sorted(drawn.items())}

    def interval(self, branch: str, level: int) -> Interval | None:
        """The mean of the judged figure; its confidence interval too, unless replicates are copies or values are not
        finite. None if there are no figures."""
        values = [*self.values(branch, level).values()]
        if not values:
            return None
        bounded = all(map(math.isfinite, values)) and not copied_replicates(self.of(branch, level))
        return mean_interval(values, self.confidence) if bounded else Interval(sum(values) / len(values), None, None)

    def best_replicate(self, level: int, among: Iterable[int]) -> int:
        """The one of these replicates whose ticket has the best judged figure; the first of equals, or if there are
        no figures."""
        values = self._gains("ticket", level)
        return max(among, key=lambda r: -math.inf if math.isnan(values.get(r, math.nan)) else values[r])

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

    def _judge(self, level: int, tested: bool) -> LevelResult:
        """The result of one level, without regard to denser ones; `tested` is that of the table."""
        rows = self.of("ticket", level)
        left = sum(row.weights_left for row in rows) / len(rows)
        diverged = any(row.measures.diverged for row in rows)
        if diverged or len(rows) < self.replicates:  # a replicate ended at a denser level
            return LevelResult(level, left, "diverged")
        figure = self.interval("ticket", level)
        tickets, dense = self._gains("ticket", level), self._gains("ticket", 0)
        both = sorted(tickets.keys() & dense.keys())
        if level == 0 or not both:
            return LevelResult(level, left, "dense" if level == 0 else "not evaluated", figure)
        if not all(math.isfinite(gains[r]) for gains in (tickets, dense) for r in both):
            return LevelResult(level, left, "not evaluated", figure)
        gain = PairedTest.difference([tickets[r] for r in both], [dense[r] for r in both], 1 - self.confidence)
        tested = tested and gain.n >= FEWEST_REPLICATES
        bound = gain.low if tested else None
        found = LevelResult(level, left, self._state(gain, tested), figure)
        if self.lower_is_better:
            return replace(found, difference=-gain.estimate, high=None if bound is None else -bound)
        return replace(found, difference=gain.estimate, low=bound)

    def _gains(self, branch: str, level: int) -> dict[int, float]:
        """The judged figure by replicate, with the sign that makes higher better, and the seven digits of float32: a
        difference of exactly the margin is a tie, however the figures were rounded."""
        sign = -1 if self.lower_is_better else 1
        return {r: sign * float(f"{value:.7g}") for r, value in self.values(branch, level).items()}

    def _state(self, gain: PairedTest, tested: bool) -> MatchState:
        if tested:
            if gain.p_above(-self.margin) <= gain.alpha:
                return "matches"
            return "worse" if gain.p_below(-self.margin) <= gain.alpha else "cannot tell"
        if gain.estimate >= -self.margin - 1e-9:  # at the margin, whatever is lost in rounding the difference
            return "within the margin"
        return "above the margin" if self.lower_is_better else "below the margin"


class LevelTableListener(Listener):
    """Adds every result of a search to the table."""

    def __init__(self, table: LevelTable, initial: Callable[[BaseRun], State] | None = None) -> None:
        """`initial` gives the weights that a run starts with. Without it, copies are not found."""
        self.table = table
        self.tickets: dict[tuple[int, int], BaseRun] = {}
        """The runs of tickets, by (level, replicate)."""
        self._initial = initial
        self._tolerated: dict[int, dict[str, float]] = {}
        """The `tolerances` of each replicate's dense training."""
        self._warned: set[str] = set()

    def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
        """See `Listener`. Logs a warning at the first copies, at the first figure that cannot be compared, and if the
        judged figure seems to be the wrong way up; raises `InputError` if `minimize` names unknown figures."""
        if request.branch == "trunk" or (request.branch == "ticket" and (request.level, study) in self.tickets):
            return
        if request.branch == "ticket":
            self.tickets[request.level, study] = request.run
        figures = {
            name.removeprefix(METRIC_PREFIX): float(curve[-1])
            for name, curve in outcome.curves.items()
            if name.startswith(METRIC_PREFIX)
        }
        if outcome.measures.diverged:
            figures = {}
        if figures and self.table.judged is None:
            check_direction(figures, self.table.minimize)
        if self._initial is not None and (request.branch, request.level) == ("ticket", 0):
            start = self._initial(request.run)
            self._tolerated[study] = tolerances(request.run.mask, start, outcome.final)
        final = sketch(outcome.final, request.run.mask, self._tolerated.get(study, {}))
        self.table.results.append(Row.of(study, request, outcome, figures, final))
        self._warn_once("copies", lambda: copies_text(self.table.copies))
        self._warn_once("gap", lambda: self.table.figure_gap)

    def _warn_once(self, kind: str, describe: Callable[[], str]) -> None:
        if kind not in self._warned and (text := describe()):
            self._warned.add(kind)
            _log.warning(text)
