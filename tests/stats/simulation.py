"""Simulated experiments with known truth, to measure the error rate of the verdict.

`python -m tests.stats.simulation` prints the tables of docs/explanation/verdict.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tombola.experiments.margin import Margin
from tombola.experiments.results_schema import Row
from tombola.experiments.sections import VerdictSection
from tombola.runs.outcome import Measures
from tombola.stats.judge_looks import judge_looks
from tombola.stats.verdict import Verdict, judge, smallest_winning

EXPERIMENTS = 10_000
CRITERIA = VerdictSection(margin=Margin(0.002), stop_margin=0.05)
LENGTH = 10_000
DENSE, SPREAD = 0.98, 0.001
"""Accuracy of the dense network, and the standard deviation over replicates: about those of LeNet on MNIST."""

Generator = np.random.Generator
Values = npt.NDArray[np.float64]
Noise = Callable[[Generator, int], Values]
"""(generator, n) -> n values of mean 0 and standard deviation 1."""


def normal(generator: Generator, n: int) -> Values:
    return generator.normal(size=n)


def heavy(generator: Generator, n: int) -> Values:
    """Student's t with 3 degrees of freedom: a few replicates are far from the mean."""
    return generator.standard_t(3, size=n) / 3**0.5


def failures(generator: Generator, n: int) -> Values:
    """Mostly a little better, rarely much worse: few replicates do not show the mean."""
    return -(generator.gamma(2, size=n) - 2) / 2**0.5


def stops(generator: Generator, n: int, mean: float, spread: float) -> Values:
    """Early-stopping iterations: skewed, and rounded to 100 iterations; `spread` is relative to the mean."""
    return np.maximum(100, 100 * np.round(generator.gamma(spread**-2, mean * spread**2, size=n) / 100))


@dataclass(frozen=True)
class Case:
    """A kind of experiment."""

    what: str
    replicates: int
    wins: bool = False
    """Whether tickets are truly winning."""
    noise: Noise = normal
    ticket_noise: Noise | None = None
    """If it differs from that of the dense network."""
    accuracy: Sequence[float] = (0.003,)
    """By level: the ticket's true accuracy minus the dense network's."""
    stop: float = 0.3
    """The ticket's true mean early-stopping iteration divided by the dense network's."""
    control: tuple[float, float] | None = None
    """Of a reinitialised control: its accuracy minus the ticket's, and its early stop divided by the ticket's."""
    draws: int = 1
    alike_from: int | None = None
    """The level from which a winner is a false one; there a control truly equals the ticket."""
    looks: Sequence[int] = ()
    """The numbers of replicates after which the experiment is judged, until a level wins; empty: at the end."""
    planned: bool = False
    """Whether these looks share the error rate; otherwise each is judged as if it were the only one."""
    dense_stop: float = 3000.0
    """The dense network's true mean early-stopping iteration."""
    images: int | None = None
    """The number of test images; None for exact accuracies."""
    spread: float = 0.2
    """The standard deviation of early-stopping iterations divided by their mean."""

    def rows(self, generator: Generator) -> list[Row]:
        """One experiment."""
        n = self.replicates
        shared = SPREAD * generator.normal(size=n)  # common to all networks of a replicate
        dense = DENSE + shared + SPREAD * self.noise(generator, n)
        rows = self._branch("ticket", 0, 0, dense, stops(generator, n, self.dense_stop, self.spread))
        for level, advantage in enumerate(self.accuracy, start=1):
            ticket = DENSE + shared + advantage + SPREAD * (self.ticket_noise or self.noise)(generator, n)
            rows += self._branch(
                "ticket", level, 0, ticket, stops(generator, n, self.dense_stop * self.stop, self.spread)
            )
            for draw in range(self.draws if self.control else 0):
                assert self.control is not None
                control = SAME if self.alike_from and level >= self.alike_from else self.control
                other = DENSE + shared + advantage + control[0] + SPREAD * self.noise(generator, n)
                later = stops(generator, n, self.dense_stop * self.stop * control[1], self.spread)
                rows += self._branch("reinit", level, draw, other, later)
        return rows

    def _branch(self, branch: str, level: int, draw: int, accuracies: Values, stop: Values) -> list[Row]:
        if self.images:
            accuracies = np.round(accuracies * self.images) / self.images
        return [
            Row(
                replicate,
                level,
                branch,
                draw,
                weights=400 // max(level, 1) if level else 1000,
                weights_total=1000,
                run="",
                measures=Measures.model_construct(
                    diverged=False,
                    iterations=LENGTH * 10,
                    stop_iteration=int(iteration),
                    test_accuracy_at_stop=float(accuracy),
                ),
            )
            for replicate, (accuracy, iteration) in enumerate(zip(accuracies, stop, strict=True))
        ]

    def winning(self, experiments: int, seed: int = 0) -> float:
        """The fraction of experiments with a level that is wrongly called winning (or rightly, if `wins`)."""
        generator = np.random.default_rng(seed)
        return sum(self._called(self.rows(generator)) for _ in range(experiments)) / experiments

    def _called(self, rows: Sequence[Row]) -> bool:
        if self.planned:
            planned = CRITERIA.model_copy(update={"looks": list(self.looks)})
            return self._found(judge_looks(rows, self.replicates, planned))
        looks = self.looks or (self.replicates,)
        return any(self._found(judge([row for row in rows if row.replicate < n], n, CRITERIA)) for n in looks)

    def _found(self, verdicts: Sequence[Verdict]) -> bool:
        """Whether a level is called winning that is not (or, if `wins`, that is)."""
        found = smallest_winning(verdicts)
        return found is not None and found.level >= (self.alike_from or 0)


AT_MARGIN = -CRITERIA.margin.value
BETTER = (-0.01, 2.0)
"""A control that is clearly worse than its ticket."""
SAME = (0.0, 1.0)
"""A control that equals its ticket."""
NULLS = [
    *(Case("accuracy at its margin", n, accuracy=(AT_MARGIN,)) for n in (3, 5, 10, 20)),
    *(Case("the same, heavy tails", n, accuracy=(AT_MARGIN,), noise=heavy) for n in (3, 5, 20)),
    *(Case("the same, counted on 1,000 images", n, accuracy=(AT_MARGIN,), images=1000) for n in (3, 5, 20)),
    *(Case("early stop at its margin, skewed", n, stop=1.05, spread=0.4) for n in (3, 5, 10, 20)),
    *(Case("the same, evaluations too far apart", n, stop=1.05, dense_stop=200, spread=0.15) for n in (3, 5, 10, 20)),
    *(Case("8 levels, all at the margin of accuracy", n, accuracy=(AT_MARGIN,) * 8) for n in (5, 10)),
    *(
        Case("control against control, 4 levels", n, accuracy=(0.003,) * 4, control=(0.0, 1.0))
        for n in (3, 5, 10, 20)
    ),
    Case("the same, 3 draws", 5, accuracy=(0.003,) * 4, control=(0.0, 1.0), draws=3),
    Case(
        "a control that is worse at the first 2 of 4 levels only",
        5,
        True,
        accuracy=(0.003,) * 4,
        control=BETTER,
        alike_from=3,
    ),
    Case("better than the control, accuracy at its margin", 5, accuracy=(AT_MARGIN,) * 4, control=BETTER),
]
STRONG = [
    *(Case("0.3 points better, stops at half", n, wins=True, stop=0.5, control=BETTER) for n in (3, 5, 10)),
    *(Case("the same, early stops vary more", n, wins=True, stop=0.5, control=BETTER, spread=0.4) for n in (5, 10)),
    *(
        Case("as accurate, stops at 70%", n, True, accuracy=(0.0,), stop=0.7, control=BETTER, spread=0.4)
        for n in (5, 10, 20)
    ),
]
LOOKS = (5, 10, 20)


def at_planned_looks(what: str, **truth: Any) -> Case:
    return Case(what, LOOKS[-1], looks=LOOKS, planned=True, **truth)


PLANNED = [
    at_planned_looks("accuracy at its margin", accuracy=(AT_MARGIN,)),
    at_planned_looks("the same, heavy tails", accuracy=(AT_MARGIN,), noise=heavy),
    at_planned_looks("the same, counted on 1,000 images", accuracy=(AT_MARGIN,), images=1000),
    at_planned_looks("early stop at its margin, skewed", stop=1.05, spread=0.4),
    at_planned_looks("8 levels, all at the margin of accuracy", accuracy=(AT_MARGIN,) * 8),
    at_planned_looks("4 levels, all but the first at the margin", accuracy=(0.003, *(AT_MARGIN,) * 3), alike_from=2),
    at_planned_looks("control against control, 4 levels", accuracy=(0.003,) * 4, control=SAME),
    at_planned_looks("better than the control, accuracy at its margin", accuracy=(AT_MARGIN,) * 4, control=BETTER),
]
PLANNED_STRONG = [
    at_planned_looks("0.3 points better, stops at half", wins=True, stop=0.5, control=BETTER),
    at_planned_looks("as accurate, stops at 70%", wins=True, accuracy=(0.0,), stop=0.7, control=BETTER, spread=0.4),
]
LIMITS = [
    *(
        Case(
            "accuracy at its margin, only tickets fail occasionally", n, accuracy=(AT_MARGIN,), ticket_noise=failures
        )
        for n in (5, 20)
    ),
    Case("accuracy at its margin, judged after 5, 10 and 20", 20, accuracy=(AT_MARGIN,), looks=(5, 10, 20)),
]


def main() -> None:
    out = sys.stdout.write
    out("| truth | replicates | called winning |\n|-|-:|-:|\n")
    for case in [*NULLS, *LIMITS, *STRONG, *PLANNED, *PLANNED_STRONG]:
        out(f"| {case.what} | {case.replicates} | {case.winning(EXPERIMENTS):.1%} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
