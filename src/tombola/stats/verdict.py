"""The verdict on each level: is the ticket a winning one?

The lottery ticket hypothesis (Frankle & Carbin 2019, section 1) makes three statements about a ticket: it is as
accurate as the dense network (a' >= a), it needs no more training iterations (j' <= j), and it has far fewer weights.
If a control was trained, there is a fourth statement: tickets are better than the control, e.g. the same masks with
newly drawn weights. Each statement is tested, paired over replicates, at the same error rate. A ticket wins if all
hold. `docs/explanation/verdict.md` has the formulas, the sources and simulations.

Levels are tested from dense to sparse, starting at the first that is sparse enough; testing stops at the first that
does not win. So the probability that any level is wrongly called winning stays at 1 - confidence, however many levels
there are (fixed-sequence testing, Maurer, Hothorn & Lehmacher 1995).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from tombola.experiments.copies import ADVICE as COPIES_ADVICE
from tombola.experiments.metric import ACCURACY, Metric
from tombola.experiments.results_schema import Row
from tombola.experiments.sections import VerdictSection
from tombola.stats.paired_comparison import (
    BranchRows,
    PairedComparison,
    compare_branches,
    evaluation_interval,
    measured,
    no_early_stop,
    rows_by_level,
    was_timed,
)
from tombola.stats.paired_test import min_replicates, p_better_in_any
from tombola.studies.request import UNCOMPARED

FEWEST_REPLICATES = 3
"""With only two replicates, differences that happen to be equal would look certain."""

ADVICE_FINISH = "Some runs are still to do, or diverged."
ADVICE_EVALUATE = "A finite figure is needed from every training."
ADVICE_TRAIN_LONGER = "Train longer."
ADVICE_NONE = "No reasonable number of replicates would decide it."

VerdictState = Literal["dense", "winning", "not winning", "cannot tell"]


@dataclass(frozen=True)
class OpenQuestion:
    """A statement that could not be decided."""

    reason: str
    """The reason, in a few words."""
    count_more: Callable[[], int | None] = lambda: None
    """Computes how many more replicates would probably decide it; None if no number would."""
    advice: str = ADVICE_NONE
    """What to do if no number of replicates would decide it."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on one level."""

    level: int
    state: VerdictState
    reason: str = ""
    """Why the level does not win, or cannot be decided, in a few words."""
    questions: Sequence[OpenQuestion] = ()
    """What could not be decided."""
    accurate: bool = False
    """Whether the metric at early stop is, with the confidence of the criteria, worse than the dense network's by at
    most the margin."""
    fast: bool | None = False
    """Whether the early-stopping iteration is, with the confidence of the criteria, later than the dense network's by
    at most the margin, and is not the last iteration. None if early stop was not asked for."""
    p_better_than_control: float | None = None
    """The p-value of the hypothesis "tickets are better than the control neither in the metric nor in early stop";
    None if the control was not trained in all replicates."""
    sparse_enough: bool = False
    """Whether the fraction of weights left is at most `max_density`."""
    stop_margin: float = 0.0
    """How much later tickets may stop: the margin of the criteria, or 0 if evaluations are too far apart for it."""
    dense: PairedComparison | None = None
    controls: Mapping[str, PairedComparison] = field(default_factory=dict)
    won_at: int | None = None
    """The number of replicates at the planned look at which the level won; all fields are from that look."""

    @property
    def winning(self) -> bool:
        """Whether all statements hold."""
        return self.state == "winning"

    @property
    def more_replicates(self) -> int | None:
        """How many more replicates would probably decide all open questions. None if no number would, or if nothing
        is open."""
        needed = [question.count_more() for question in self.questions]
        return None if None in needed else max((n for n in needed if n is not None), default=None)

    @property
    def advice(self) -> str:
        """What to do if no number of replicates would decide; empty otherwise."""
        return next((question.advice for question in self.questions if question.count_more() is None), "")


def smallest_winning(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The winning level with the fewest weights."""
    return max((verdict for verdict in verdicts if verdict.winning), key=lambda v: v.level, default=None)


class Judged(Protocol):
    """A verdict on a level."""

    @property
    def state(self) -> VerdictState:
        """See `Verdict`."""

    @property
    def sparse_enough(self) -> bool:
        """See `Verdict`."""


def is_undecided(verdicts: Iterable[Judged], finished: bool) -> bool:
    """Whether an experiment in which no level wins may still have a winning ticket, because its first level with few
    enough weights cannot be decided, or is not trained yet."""
    first = next((verdict for verdict in verdicts if verdict.sparse_enough), None)
    return not finished if first is None else first.state == "cannot tell"


def judge(
    rows: Sequence[Row],
    replicates: int,
    criteria: VerdictSection,
    needs_control: Callable[[int], bool] = lambda level: False,  # noqa: ARG005
    no_ticket: str | None = None,
    metric: Metric = ACCURACY,
    copies: Sequence[int] = (),
    won: Collection[int] = (),
) -> list[Verdict]:
    """The verdict on every level that has tickets, from dense to sparse.

    `metric` is judged. `copies` are replicates that are not independent evidence, because they ended in the same
    weights as others; if there are any, nothing can be decided. If no training was evaluated before its end, early
    stop is not asked for, and the other statements decide. `needs_control(level)` says at which levels the control
    belongs to the experiment, even if it is not trained yet; a control that was trained always counts. A level with a
    diverged ticket does not win. `no_ticket` is the reason why no level can win, if weights were not rewound after
    pruning or the mask changed during training: early stops then cannot be compared with the dense network's. Levels
    that have `won` before do not stop the testing of sparser ones.
    """
    levels = {level: branches for level, branches in rows_by_level(rows).items() if "ticket" in branches}
    dense = levels[0]["ticket"] if 0 in levels else {}
    stop_margin = _stop_margin(dense, evaluation_interval(rows), criteria)
    timed = was_timed(rows)
    verdicts: list[Verdict] = []
    denser: list[OpenQuestion] = []
    for level, branches in levels.items():
        if level == 0:
            verdicts.append(Verdict(0, "dense"))
            continue
        needed = needs_control(level)
        evidence = LevelEvidence(
            branches, dense, replicates, criteria, stop_margin, needed, no_ticket, metric, timed, tuple(copies)
        )
        verdict = evidence.verdict(level, denser)
        verdicts.append(verdict)
        if verdict.sparse_enough and not verdict.winning and level not in won and not denser:
            reason = f"level {level} does not win"
            denser = [replace(each, reason=reason) for each in verdict.questions] or [OpenQuestion(reason, advice="")]
    return verdicts


def _stop_margin(dense: BranchRows, interval: int, criteria: VerdictSection) -> float:
    """The margin for early stops; 0 if evaluations are further apart than the margin. In that case, tickets that are
    occasionally one evaluation later would look as fast as the dense network, so they must be faster."""
    stops = [row.measures.stop_iteration for row in _rows(dense) if row.measures.stop_iteration is not None]
    return criteria.stop_margin if stops and criteria.stop_margin * sum(stops) / len(stops) >= interval else 0.0


@dataclass(frozen=True)
class LevelEvidence:
    """Everything that the verdict on one level depends on."""

    branches: Mapping[str, BranchRows]
    dense: BranchRows
    replicates: int
    criteria: VerdictSection
    stop_margin: float
    needs_control: bool
    no_ticket: str | None
    metric: Metric
    timed: bool
    """Whether early stop was asked for."""
    copies: tuple[int, ...]

    def verdict(self, level: int, denser: Sequence[OpenQuestion]) -> Verdict:
        """The verdict; `denser` is what denser levels leave open."""
        tickets, alpha = self.branches["ticket"], self.criteria.alpha
        comparison = compare_branches(tickets, self.dense, alpha, self.metric)
        verdict = Verdict(
            level,
            "cannot tell",
            fast=False if self.timed else None,
            sparse_enough=all(row.weights_left <= self.criteria.max_density for row in _rows(tickets)),
            stop_margin=self.stop_margin,
            dense=comparison,
            controls={
                name: control
                for name, others in self.branches.items()
                if name not in ("ticket", *UNCOMPARED)
                and (control := compare_branches(tickets, others, alpha, self.metric))
            },
        )
        diverged = sum(row.measures.diverged for row in _rows(tickets))
        if diverged or any(row.measures.diverged for row in _rows(self.dense)):
            reason = f"{diverged} of {self.replicates} diverged" if diverged else "the dense network diverged"
            return replace(verdict, state="not winning", reason=reason)
        if (finished := len(tickets.keys() & self.dense.keys())) < self.replicates:
            reason = f"{finished} of {self.replicates} replicates"
            # Nothing is compared yet: tests that are looked at again and again find winners that are none.
            untested = replace(verdict, dense=None, controls={})
            return _undecided(untested, [OpenQuestion(reason, advice=ADVICE_FINISH)])
        if self.copies:
            reason = f"replicates {', '.join(map(str, self.copies))} are copies"
            return _undecided(verdict, [OpenQuestion(reason, advice=COPIES_ADVICE)])
        if reason := self._not_measured():
            return _undecided(verdict, [OpenQuestion(reason, advice=ADVICE_EVALUATE)])
        if comparison is None or self.replicates < FEWEST_REPLICATES:
            missing = min_replicates(alpha) - self.replicates
            return _undecided(verdict, [OpenQuestion("too few replicates", lambda: missing)])
        return self._tested(verdict, comparison, denser)

    def _tested(self, verdict: Verdict, dense: PairedComparison, denser: Sequence[OpenQuestion]) -> Verdict:
        """The verdict on a level that has all its replicates."""
        alpha, latest = self.criteria.alpha, 1 + self.stop_margin
        gain, least = dense.worse_by(self.criteria.margin)
        censored = sum(map(no_early_stop, _rows(self.branches["ticket"])))
        p_better, control_questions = self._test_control(verdict)
        verdict = replace(
            verdict,
            accurate=gain.p_above(least) <= alpha,
            fast=None
            if dense.stop is None
            else self.no_ticket is None and not censored and dense.stop.p_below(latest) <= alpha,
            p_better_than_control=p_better,
        )
        for reason, holds in (
            (self.metric.worse, gain.p_below(least) <= alpha),
            (self.no_ticket or "", self.no_ticket is not None),
            ("slower", dense.stop is not None and dense.stop.p_above(1 + self.criteria.stop_margin) <= alpha),
            ("too many weights", not verdict.sparse_enough),
            (f"worse than {self.criteria.control}", self._worse_than_control(verdict)),
        ):
            if holds:
                return replace(verdict, state="not winning", reason=reason)
        questions = [*control_questions, *denser]
        if censored:
            reason = f"{censored} of {self.replicates} did not stop early"
            questions.insert(0, OpenQuestion(reason, advice=ADVICE_TRAIN_LONGER))
        elif dense.stop is not None and not verdict.fast:
            questions.insert(0, OpenQuestion("early stop", functools.partial(dense.stop.more_replicates, latest)))
        if not verdict.accurate:
            questions.insert(0, OpenQuestion(self.metric.name, lambda: gain.more_replicates(least)))
        return _undecided(verdict, questions) if questions else replace(verdict, state="winning")

    def _not_measured(self) -> str:
        """The figures that are missing for a test, in a few words; empty if none are missing."""
        rows = [*_rows(self.branches["ticket"]), *_rows(self.dense)]
        missing = sum(not measured(row, self.metric) for row in rows)
        if missing:
            return f"no finite {self.metric.name} in {missing} of {len(rows)} trainings"
        unknown = sum(row.measures.stop_iteration is None for row in rows) if self.timed else 0
        return f"no early stop in {unknown} of {len(rows)} trainings" if unknown else ""

    def _test_control(self, verdict: Verdict) -> tuple[float | None, list[OpenQuestion]]:
        """The p-value of "not better than the control", and the question that stays open if it is too large."""
        name = self.criteria.control
        if not self.needs_control and name not in self.branches:
            return None, []
        control = verdict.controls.get(name)
        finished = control.gain.n if control else 0
        if control is None or finished < self.replicates:
            return None, [OpenQuestion(f"{name} in {finished} of {self.replicates} replicates", advice=ADVICE_FINISH)]
        p = p_better_in_any(control.gains[:1] if self.no_ticket else control.gains, self.criteria.alpha)
        if p <= self.criteria.alpha:
            return p, []
        return p, [OpenQuestion(f"no better than {name}", control.more_replicates_to_be_better)]

    def _worse_than_control(self, verdict: Verdict) -> bool:
        control, p_better = verdict.controls.get(self.criteria.control), verdict.p_better_than_control
        if control is None or p_better is None or p_better <= self.criteria.alpha:
            return False
        return p_better_in_any([-gains for gains in control.gains], self.criteria.alpha) <= self.criteria.alpha


def _undecided(verdict: Verdict, questions: Sequence[OpenQuestion]) -> Verdict:
    return replace(verdict, state="cannot tell", reason=questions[0].reason, questions=tuple(questions))


def _rows(branch: BranchRows) -> Iterable[Row]:
    return (row for rows in branch.values() for row in rows)
