"""Levels: what came of a search with a training function of the user's own, level by level."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from tombola.stats.interval import Interval, mean_interval
from tombola.stats.paired import Paired
from tombola.stats.verdict import FEWEST_REPLICATES

State = Literal[
    "dense", "matches", "worse", "cannot tell", "within the margin", "below the margin", "diverged", "not evaluated"
]


@dataclass(frozen=True)
class Answer:
    """What came of one training."""

    replicate: int
    level: int
    branch: str
    """`ticket`, or a control's name."""
    draw: int
    weights: int
    """How many prunable weights are left."""
    weights_total: int
    figures: dict[str, float]
    """What was said of it; empty where nothing was, and where it diverged."""
    diverged: bool = False
    iterations: int = 0
    """How many optimizer steps it took."""


@dataclass(frozen=True)
class LevelResult:
    """What can be said of one level of tickets beside the dense network."""

    level: int
    weights_left: float
    """The fraction of weights left, the mean over replicates."""
    state: State
    figure: Interval | None = None
    """Of the judged figure."""
    difference: float | None = None
    """By how much it is above the dense network's."""
    low: float | None = None
    """The difference's lower bound; None where there are too few replicates for one."""
    behind: int | None = None
    """The level whose question is still open, where this one would match by itself."""

    @property
    def matches(self) -> bool:
        """Whether it is as good as the dense network, within the margin, as far as that can be told."""
        return self.state in ("matches", "within the margin")


@dataclass
class LevelTable:
    """The table of levels. Tickets match when their judged figure, paired over replicates, is shown not to be below
    the dense network's by more than `margin`; levels are tested in sequence, from dense to sparse (see
    `tombola.stats.verdict`). With fewer than three replicates means are compared, and nothing is shown."""

    margin: float
    confidence: float = 0.95
    answers: list[Answer] = field(default_factory=list)

    @property
    def judged(self) -> str | None:
        """The name of the figure that is judged: the first that was given."""
        return next((name for answer in self.answers for name in answer.figures), None)

    @property
    def replicates(self) -> int:
        """How many there are."""
        return len({answer.replicate for answer in self.answers})

    def __iter__(self) -> Iterator[LevelResult]:
        """From dense to sparse."""
        dense, first = self.values("ticket", 0), None
        for level in sorted({answer.level for answer in self.answers if answer.branch == "ticket"}):
            found = self._judge(level, dense)
            if found.matches and first is not None:
                found = replace(found, state="cannot tell", behind=first)
            elif level and first is None and not found.matches:
                first = level
            yield found

    def __getitem__(self, level: int) -> LevelResult:
        """The level of that number. Raises `IndexError`."""
        for found in self:
            if found.level == level:
                return found
        raise IndexError(level)

    @property
    def sparsest_match(self) -> LevelResult | None:
        """The sparsest level that matches the dense network."""
        return max((found for found in self if found.matches), key=lambda found: found.level, default=None)

    def values(self, branch: str, level: int) -> dict[int, float]:
        """The judged figure by replicate; the mean over draws."""
        drawn: dict[int, list[float]] = {}
        for answer in self.of(branch, level):
            if self.judged in answer.figures:
                drawn.setdefault(answer.replicate, []).append(answer.figures[self.judged])
        return {replicate: sum(values) / len(values) for replicate, values in sorted(drawn.items())}

    def of(self, branch: str, level: int) -> list[Answer]:
        """All answers of a branch at a level."""
        return [answer for answer in self.answers if (answer.branch, answer.level) == (branch, level)]

    @property
    def branches(self) -> list[str]:
        """`ticket`, and the controls."""
        return list(dict.fromkeys(answer.branch for answer in self.answers))

    def rows(self) -> list[dict[str, Any]]:
        """One flat dictionary for each training: for data frames."""
        rows = [(asdict(answer), answer.figures) for answer in self.answers]
        for row, figures in rows:
            del row["figures"]
            row |= {f"figure {name}" if name in row else name: value for name, value in figures.items()}
        return [row for row, _ in rows]

    def _judge(self, level: int, dense: dict[int, float]) -> LevelResult:
        """A level by itself."""
        answers, values = self.of("ticket", level), self.values("ticket", level)
        left = sum(answer.weights / answer.weights_total for answer in answers) / len(answers)
        if any(answer.diverged for answer in answers) or len(answers) < self.replicates:  # it ended before
            return LevelResult(level, left, "diverged")
        if not values:
            return LevelResult(level, left, "dense" if level == 0 else "not evaluated")
        figure = mean_interval(list(values.values()), self.confidence)
        both = sorted(values.keys() & dense.keys())
        if level == 0 or not both:
            return LevelResult(level, left, "dense" if level == 0 else "not evaluated", figure)
        paired = Paired.difference([values[r] for r in both], [dense[r] for r in both], 1 - self.confidence)
        low = paired.low if paired.n >= FEWEST_REPLICATES else None
        return LevelResult(level, left, self._state(paired), figure, paired.estimate, low)

    def _state(self, paired: Paired) -> State:
        if paired.n < FEWEST_REPLICATES:
            return "within the margin" if paired.estimate >= -self.margin else "below the margin"
        if paired.p_above(-self.margin) <= paired.alpha:
            return "matches"
        return "worse" if paired.p_below(-self.margin) <= paired.alpha else "cannot tell"
