"""The verdict, level by level: is the ticket a winning one?

The hypothesis (Frankle & Carbin 2019, section 1) makes three statements about a ticket: it is as accurate as the
dense network (a' >= a), it is trained as soon (j' <= j), and it has far fewer weights. Where the same masks were also
trained from newly drawn weights there is a fourth: those do worse. Each is tested, paired over replicates, at the
same chance of error; a ticket wins when all hold. `docs/verdict.md` has the formulas, the sources and simulations.

Levels are tested in a fixed order, from dense to sparse, beginning with the densest that has far fewer weights;
behind the first that does not win, none is called winning. So the chance that any level is wrongly called
winning stays at 1 - confidence, however many levels there are (fixed-sequence testing, Maurer, Hothorn &
Lehmacher 1995).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from tombola.experiments.row import Row
from tombola.experiments.sections import VerdictSection
from tombola.stats.paired import better_in_any, enough_for
from tombola.stats.paired_comparison import Branch, PairedComparison, by_level, censored, compare_branches, grid
from tombola.studies.request import UNCOMPARED

FEWEST_REPLICATES = 3
"""With two, differences that happen to be equal would look certain."""

FINISH = "Some runs are still to do, or diverged."
LONGER = "Train longer."

State = Literal["dense", "winning", "not winning", "cannot tell"]


@dataclass(frozen=True)
class Question:
    """What stands between a level and winning."""

    what: str
    """In a few words."""
    more: Callable[[], int | None] = lambda: None
    """How many more replicates would probably settle it. None where no number would."""
    instead: str = "No reasonable number of replicates would decide it."
    """What to do where no number would."""


@dataclass(frozen=True)
class Verdict:
    """What can be said of one level."""

    level: int
    state: State
    reason: str = ""
    """Why it does not win, or cannot be told to, in a few words."""
    questions: Sequence[Question] = ()
    """What is still open where it cannot be told."""
    accurate: bool = False
    """With the stated confidence, accuracy at early stop is not below the dense network's by more than the margin."""
    fast: bool = False
    """With the stated confidence, the early-stopping iteration is not later than the dense network's by more than
    the margin; and it is one (see `tombola.stats.paired_comparison.censored`)."""
    better: float | None = None
    """The p-value of "tickets are neither more accurate nor sooner trained than the control that they must be better
    than"; None where it was not trained, or not in all replicates."""
    few: bool = False
    """Far fewer weights are left."""
    stop_margin: float = 0.0
    """By how much tickets may stop later: that of the criteria, or 0 where evaluations are too far apart for it."""
    dense: PairedComparison | None = None
    controls: Mapping[str, PairedComparison] = field(default_factory=dict)

    @property
    def winning(self) -> bool:
        """All of it."""
        return self.state == "winning"

    @property
    def more(self) -> int | None:
        """How many more replicates would probably settle all that is open. None where no number would, or nothing
        is open."""
        needed = [question.more() for question in self.questions]
        return None if None in needed else max((n for n in needed if n is not None), default=None)

    @property
    def instead(self) -> str:
        """What to do where no number of replicates would settle it; empty otherwise."""
        return next((question.instead for question in self.questions if question.more() is None), "")


def smallest_winning(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The winning level with the fewest weights."""
    return max((verdict for verdict in verdicts if verdict.winning), key=lambda v: v.level, default=None)


def judge(
    rows: Sequence[Row],
    replicates: int,
    criteria: VerdictSection,
    controlled: Callable[[int], bool] = lambda level: False,  # noqa: ARG005
    no_ticket: str | None = None,
) -> list[Verdict]:
    """The verdict on every level there are tickets of, from dense to sparse.

    `controlled` says at which levels the control is to be trained that tickets must be better than, whether or not it
    has been yet; where it was trained it counts in any case. A replicate that diverged at a level was no match: such
    a level does not win. Nor does any where weights are not rewound after pruning, but trained for longer than the
    dense network's, or under a mask that changed: `no_ticket` says which, and their early stop says nothing.
    """
    levels = {level: branches for level, branches in by_level(rows).items() if "ticket" in branches}
    dense = levels[0]["ticket"] if 0 in levels else {}
    stop_margin = _stop_margin(dense, grid(rows), criteria)
    verdicts: list[Verdict] = []
    before: list[Question] = []
    for level, branches in levels.items():
        if level == 0:
            verdicts.append(Verdict(0, "dense"))
            continue
        judge_level = Judge(branches, dense, replicates, criteria, stop_margin, controlled(level), no_ticket)
        verdict = judge_level.verdict(level, before)
        verdicts.append(verdict)
        if verdict.few and not verdict.winning and not before:
            before = [_behind(verdict)]
    return verdicts


def _behind(first: Verdict) -> Question:
    return Question(f"level {first.level} does not win", lambda: first.more, first.instead)


def _stop_margin(dense: Branch, step: int, criteria: VerdictSection) -> float:
    """Early stops are seen only every so many iterations. Where that is more than the margin, tickets that are a step
    later now and then would look as soon as the dense network; so there they must be sooner."""
    stops = [row.measures.stop_iteration for row in _rows(dense) if row.measures.stop_iteration is not None]
    return criteria.stop_margin if stops and criteria.stop_margin * sum(stops) / len(stops) >= step else 0.0


@dataclass(frozen=True)
class Judge:
    """All that one level's verdict depends on."""

    branches: Mapping[str, Branch]
    dense: Branch
    replicates: int
    criteria: VerdictSection
    stop_margin: float
    controlled: bool
    no_ticket: str | None

    def verdict(self, level: int, before: Sequence[Question]) -> Verdict:
        """The verdict; `before` is what denser levels leave open."""
        tickets, alpha = self.branches["ticket"], self.criteria.alpha
        beside = compare_branches(tickets, self.dense, alpha)
        found = Verdict(
            level,
            "cannot tell",
            few=all(row.weights_left <= self.criteria.max_density for row in _rows(tickets)),
            stop_margin=self.stop_margin,
            dense=beside,
            controls={
                name: comparison
                for name, others in self.branches.items()
                if name not in ("ticket", *UNCOMPARED) and (comparison := compare_branches(tickets, others, alpha))
            },
        )
        diverged = sum(row.measures.diverged for row in _rows(tickets))
        if diverged or any(row.measures.diverged for row in _rows(self.dense)):
            reason = f"{diverged} of {self.replicates} diverged" if diverged else "the dense network diverged"
            return replace(found, state="not winning", reason=reason)
        if (there := len(tickets.keys() & self.dense.keys())) < self.replicates:
            return _open(found, [Question(f"{there} of {self.replicates} replicates", instead=FINISH)])
        if beside is None or self.replicates < FEWEST_REPLICATES:
            return _open(found, [Question("too few replicates", lambda: enough_for(alpha) - self.replicates)])
        return self._tested(found, beside, before)

    def _tested(self, found: Verdict, beside: PairedComparison, before: Sequence[Question]) -> Verdict:
        """The verdict on a level that has all its replicates."""
        alpha, least, latest = self.criteria.alpha, -self.criteria.accuracy_margin, 1 + self.stop_margin
        late = sum(map(censored, _rows(self.branches["ticket"])))
        better, against_control = self._beside_control(found)
        found = replace(
            found,
            accurate=beside.accuracy.p_above(least) <= alpha,
            fast=self.no_ticket is None and not late and beside.stop.p_below(latest) <= alpha,
            better=better,
        )
        worse = self.criteria.control if self._worse_than_control(found) else None
        for reason, holds in (
            ("less accurate", beside.accuracy.p_below(least) <= alpha),
            (self.no_ticket or "", self.no_ticket is not None),
            ("slower", beside.stop.p_above(1 + self.criteria.stop_margin) <= alpha),
            ("too many weights", not found.few),
            (f"worse than {worse}", worse is not None),
        ):
            if holds:
                return replace(found, state="not winning", reason=reason)
        questions = [*against_control, *before]
        if late:
            questions.insert(0, Question(f"{late} of {self.replicates} did not stop early", instead=LONGER))
        elif not found.fast:
            questions.insert(0, Question("early stop", lambda: beside.stop.more(latest)))
        if not found.accurate:
            questions.insert(0, Question("accuracy", lambda: beside.accuracy.more(least)))
        return _open(found, questions) if questions else replace(found, state="winning")

    def _beside_control(self, found: Verdict) -> tuple[float | None, list[Question]]:
        """The p-value of "no better than the control", and what that leaves open."""
        name = self.criteria.control
        if not self.controlled and name not in self.branches:
            return None, []
        control = found.controls.get(name)
        there = control.accuracy.n if control else 0
        if control is None or there < self.replicates:
            return None, [Question(f"{name} in {there} of {self.replicates} replicates", instead=FINISH)]
        p = better_in_any([control.accuracy.a, *([] if self.no_ticket else [control.sooner])], self.criteria.alpha)
        return p, [] if p <= self.criteria.alpha else [Question(f"no better than {name}", control.more_to_be_better)]

    def _worse_than_control(self, found: Verdict) -> bool:
        control = found.controls.get(self.criteria.control)
        if control is None or found.better is None or found.better <= self.criteria.alpha:
            return False
        return better_in_any([-control.accuracy.a, -control.sooner], self.criteria.alpha) <= self.criteria.alpha


def _open(found: Verdict, questions: Sequence[Question]) -> Verdict:
    return replace(found, state="cannot tell", reason=questions[0].what, questions=tuple(questions))


def _rows(branch: Branch) -> Iterable[Row]:
    return (row for rows in branch.values() for row in rows)
