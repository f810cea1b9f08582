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

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from pydantic import Field

from tombola.evidence.against import Against, Branch, against, by_level, censored, pairs
from tombola.evidence.paired import Paired, better_in_any, enough_for
from tombola.run import Described
from tombola.table import Row

FEWEST_REPLICATES = 3
"""With two, differences that happen to be equal would look certain."""

State = Literal["dense", "winning", "not winning", "cannot tell"]


class Criteria(Described):
    """`[verdict]`: what counts as winning."""

    accuracy_margin: float = Field(default=0.002, ge=0, lt=1)
    """By how much test accuracy at early stop may fall short of the dense network's: 0.002 is 0.2 points."""
    stop_margin: float = Field(default=0.05, ge=0)
    """By how much the early-stopping iteration may come later, as a fraction of the dense network's."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """How sure each statement must be."""
    few: float = Field(default=0.5, gt=0, lt=1)
    """At most this fraction of weights left counts as far fewer."""
    beat: str = "reinit"
    """The control that tickets must be better than, in an experiment that has it."""

    @property
    def alpha(self) -> float:
        """The chance of error that each statement is allowed."""
        return 1 - self.confidence


@dataclass(frozen=True)
class Question:
    """What stands between a level and winning."""

    what: str
    """In a few words."""
    more: Callable[[], int | None] = lambda: None
    """How many more replicates would probably settle it. None where no number would."""


@dataclass(frozen=True)
class Verdict:
    """What can be said of one level."""

    level: int
    state: State
    reason: str = ""
    """Why it does not win, or cannot be told to, in a few words."""
    questions: tuple[Question, ...] = ()
    """What is still open where it cannot be told."""
    accurate: bool = False
    """With the stated confidence, accuracy at early stop is not below the dense network's by more than the margin."""
    fast: bool = False
    """With the stated confidence, the early-stopping iteration is not later than the dense network's by more than
    the margin; and it is one (see `tombola.evidence.against.censored`)."""
    few: bool = False
    """Far fewer weights are left."""
    dense: Against | None = None
    controls: dict[str, Against] = field(default_factory=dict)

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


@dataclass(frozen=True)
class Control:
    """Whether tickets are better than their control, over all levels of few weights together."""

    name: str
    p: float | None
    """The p-value of "tickets are neither more accurate nor sooner trained"; None with too few replicates."""
    differences: tuple[Paired, ...] = ()

    def more(self) -> int | None:
        """How many more replicates would probably show it, in whichever figure they would sooner."""
        promising = [paired.more(0.0) for paired in self.differences if paired.estimate > 0]
        return min((n for n in promising if n is not None), default=None)


@dataclass(frozen=True)
class Judgement:
    """What can be said of an experiment."""

    verdicts: list[Verdict]
    """From dense to sparse."""
    control: Control | None
    """None where the control that tickets must be better than was not trained."""

    @property
    def smallest_winning(self) -> Verdict | None:
        """The winning level with the fewest weights."""
        return max((verdict for verdict in self.verdicts if verdict.winning), key=lambda v: v.level, default=None)


def judge(rows: Sequence[Row], replicates: int, criteria: Criteria) -> Judgement:
    """The verdict on every level there are tickets of, from dense to sparse.

    A replicate that diverged at a level was no match: such a level does not win.
    """
    levels = {level: branches for level, branches in by_level(rows).items() if "ticket" in branches}
    few = [branches for level, branches in levels.items() if level > 0 and _few(branches["ticket"], criteria)]
    control = _control(few, criteria)
    dense = levels[0]["ticket"] if 0 in levels else {}
    verdicts: list[Verdict] = []
    before: list[Question] = []  # what is open whatever a level's own tests say
    if control and (control.p is None or control.p > criteria.alpha):
        before.append(Question(f"no better than {control.name}", control.more))
    blocked = False
    for level, branches in levels.items():
        verdict = _judge_level(level, branches, dense, replicates, criteria, before)
        verdicts.append(verdict)
        if verdict.few and not verdict.winning and not blocked:
            blocked = True
            before.append(Question(f"level {level} does not win", functools.partial(_more, verdict)))
    return Judgement(verdicts, control)


def _control(levels: Iterable[dict[str, Branch]], criteria: Criteria) -> Control | None:
    """One question for the whole experiment, so that there is one test and not one a level: each replicate's
    differences are averaged over its levels."""
    accuracy: dict[int, list[float]] = {}
    stop: dict[int, list[float]] = {}
    trained = False
    for branches in levels:
        trained |= criteria.beat in branches
        for pair in pairs(branches["ticket"], branches.get(criteria.beat, {})):
            accuracy.setdefault(pair.replicate, []).append(pair.accuracy[0] - pair.accuracy[1])
            # Of the ratio the logarithm: to swap ticket and control is then to change a sign.
            stop.setdefault(pair.replicate, []).append(float(np.log(pair.stop[1] / pair.stop[0])))
    if not trained:
        return None
    if len(accuracy) < FEWEST_REPLICATES:
        return Control(criteria.beat, None)
    means = [np.array([np.mean(values) for values in kind.values()]) for kind in (accuracy, stop)]
    differences = tuple(Paired(values, np.ones(len(values)), criteria.alpha) for values in means)
    return Control(criteria.beat, better_in_any(means, criteria.alpha), differences)


def _judge_level(
    level: int,
    branches: dict[str, Branch],
    dense: Branch,
    replicates: int,
    criteria: Criteria,
    before: Sequence[Question],
) -> Verdict:
    tickets, few = branches["ticket"], _few(branches["ticket"], criteria)
    if level == 0:
        return Verdict(0, "dense")
    diverged = sum(row.measures.diverged for row in _rows(tickets))
    if diverged or any(row.measures.diverged for row in _rows(dense)):
        what = f"{diverged} of {replicates} diverged" if diverged else "the dense network diverged"
        return Verdict(level, "not winning", what, few=few)
    beside = against(tickets, dense, criteria.alpha)
    controls = {
        name: comparison
        for name, others in branches.items()
        if name != "ticket" and (comparison := against(tickets, others, criteria.alpha))
    }
    if (there := len(tickets.keys() & dense.keys())) < replicates:
        return Verdict(level, "cannot tell", f"{there} of {replicates} replicates", few=few, controls=controls)
    if beside is None or replicates < FEWEST_REPLICATES:
        question = Question("too few replicates", lambda: enough_for(criteria.alpha) - replicates)
        return Verdict(level, "cannot tell", question.what, (question,), few=few, dense=beside, controls=controls)

    alpha, least, latest = criteria.alpha, -criteria.accuracy_margin, 1 + criteria.stop_margin
    late = sum(map(censored, _rows(tickets)))
    accurate = beside.accuracy.p_above(least) <= alpha
    fast = not late and beside.stop.p_below(latest) <= alpha

    def verdict(state: State, reason: str = "", questions: Sequence[Question] = ()) -> Verdict:
        return Verdict(level, state, reason, tuple(questions), accurate, fast, few, beside, controls)

    if beside.accuracy.p_below(least) <= alpha:
        return verdict("not winning", "less accurate")
    if beside.stop.p_above(latest) <= alpha:
        return verdict("not winning", "slower")
    if not few:
        return verdict("not winning", "too many weights")
    questions = []
    if not accurate:
        questions.append(Question("accuracy", lambda: beside.accuracy.more(least)))
    if late:
        questions.append(Question(f"{late} of {replicates} did not stop early"))
    elif not fast:
        questions.append(Question("early stop", lambda: beside.stop.more(latest)))
    questions += before
    return verdict("cannot tell", questions[0].what, questions) if questions else verdict("winning")


def _more(verdict: Verdict) -> int | None:
    return verdict.more


def _rows(branch: Branch) -> Iterable[Row]:
    return (row for rows in branch.values() for row in rows)


def _few(tickets: Branch, criteria: Criteria) -> bool:
    return all(row.weights_left <= criteria.few for row in _rows(tickets))
