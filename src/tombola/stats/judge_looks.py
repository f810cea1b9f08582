"""The verdict of an experiment that is judged at planned looks while it grows.

At each look only the replicates up to it are tested, with the look's error rate from `tombola.stats.planned_looks`. A
level wins if it wins at any look so far. It then counts as won at later looks, at which sparser levels may win. So
the probability that any level is wrongly called winning at any look stays at 1 - confidence (Glimm, Maurer & Bretz
2010; Maurer & Bretz 2013). `docs/explanation/verdict.md` has simulations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tombola.experiments.metric import ACCURACY, Metric
from tombola.experiments.results_schema import Row
from tombola.experiments.sections import VerdictSection
from tombola.stats.planned_looks import error_rate, nominal_levels
from tombola.stats.summary import LookSummary
from tombola.stats.verdict import ADVICE_NONE, OpenQuestion, Verdict, judge

ADVICE_LAST = "This was the last planned look."


def judge_looks(
    rows: Sequence[Row],
    replicates: int,
    criteria: VerdictSection,
    needs_control: Callable[[int], bool] = lambda level: False,  # noqa: ARG005
    no_ticket: str | None = None,
    metric: Metric = ACCURACY,
    copies: Sequence[int] = (),
) -> list[Verdict]:
    """The verdict on every level at the last planned look within `replicates`; if no looks are planned, the verdict
    of `judge`."""
    if criteria.looks is None:
        return judge(rows, replicates, criteria, needs_control, no_ticket, metric, copies)
    levels = look_levels(criteria)
    won: dict[int, Verdict] = {}
    verdicts: list[Verdict] = []
    for n in (look for look in criteria.looks if look <= replicates):
        known = [row for row in rows if row.replicate < n]
        at_look = criteria.model_copy(update={"confidence": 1 - levels[n]})
        verdicts = judge(known, n, at_look, needs_control, no_ticket, metric, copies, won.keys())
        won |= {each.level: replace(each, won_at=n) for each in verdicts if each.winning and each.level not in won}
    following = next((look for look in criteria.looks if look > replicates), None)
    return [won.get(each.level) or _with_advice(each, following) for each in verdicts]


def look_levels(criteria: VerdictSection) -> dict[int, float]:
    """The error rate α of each planned look, by its number of replicates."""
    looks = tuple(criteria.looks or ())
    return dict(zip(looks, nominal_levels(looks, criteria.alpha), strict=True))


def summarise_looks(criteria: VerdictSection, replicates: int, finished_at: Sequence[int]) -> LookSummary | None:
    """The looks of an experiment with this number of `replicates` that was finished at the numbers `finished_at`
    before; None if there is only one look."""
    if criteria.looks:
        alphas = list(look_levels(criteria).values())
        return LookSummary(planned=True, replicates=criteria.looks, alpha=alphas, error_rate=criteria.alpha)
    looks = sorted({*finished_at, replicates})
    if len(looks) == 1:
        return None
    rate, alphas = error_rate(looks, criteria.alpha), [criteria.alpha] * len(looks)
    return LookSummary(planned=False, replicates=looks, alpha=alphas, error_rate=rate)


def _with_advice(verdict: Verdict, following: int | None) -> Verdict:
    """The verdict with its advice limited: replicates are added only up to the next look."""
    advice = ADVICE_LAST if following is None else f"Go on to the next planned look, at {following} replicates."

    def at_next_look(question: OpenQuestion) -> OpenQuestion:
        return OpenQuestion(question.reason, advice=advice) if question.advice == ADVICE_NONE else question

    return replace(verdict, questions=tuple(map(at_next_look, verdict.questions)))
