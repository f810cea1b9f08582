from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.stats.simulation import PLANNED, Case
from tests.support.recipes import tiny
from tests.support.verdict_rows import verdict_row
from tombola.experiments.results import Results
from tombola.experiments.results_schema import Row, Stage, Tally
from tombola.experiments.sections import VerdictSection
from tombola.report.prose import advice, conclusion, warnings
from tombola.stats.judge_looks import ADVICE_LAST, judge_looks, look_levels
from tombola.stats.planned_looks import error_rate
from tombola.stats.summarise import build_summary
from tombola.stats.verdict import judge

LOOKS = VerdictSection(margin=0.01, looks=[5, 10, 20])


def rows_of(levels: Sequence[Sequence[float]]) -> list[Row]:
    """Tickets of these accuracies, by level and replicate, that stop sooner than a dense network of accuracy 0.95."""
    replicates = range(len(levels[0]))
    dense = [verdict_row(r, 0, 0.95, 500) for r in replicates]
    return dense + [verdict_row(r, level, a[r], 300) for level, a in enumerate(levels, 1) for r in replicates]


def varied(n: int, accuracy: float = 0.95) -> list[float]:
    return [accuracy + 0.002 * (r % 3 - 1) for r in range(n)]


GOOD, BAD, UNSURE = varied(20), varied(20, 0.9), [0.97, 0.91] * 10


def states(rows: Sequence[Row], n: int) -> list[str]:
    found = judge_looks([row for row in rows if row.replicate < n], n, LOOKS)
    return [f"{each.state} {each.won_at}" for each in found[1:]]


def test_without_looks_the_verdict_is_that_of_all_replicates() -> None:
    once = LOOKS.model_copy(update={"looks": None})
    found, known = judge_looks(rows_of([GOOD]), 20, once), judge(rows_of([GOOD]), 20, once)
    assert [(each.state, each.won_at) for each in found] == [(each.state, None) for each in known]


def test_each_look_has_its_own_level_and_replicates() -> None:
    levels = look_levels(LOOKS)
    rows = rows_of([[*UNSURE[:5], *GOOD[5:]]])
    at_5, at_10 = (judge_looks([row for row in rows if row.replicate < n], n, LOOKS)[1].dense for n in (5, 10))
    assert at_5
    assert at_10
    assert (at_5.gain.alpha, at_5.gain.n) == (pytest.approx(levels[5]), 5)
    assert (at_10.gain.alpha, at_10.gain.n) == (pytest.approx(levels[10]), 10)
    assert states(rows_of([GOOD]), 10) == ["winning 10"]  # 1/1024 is less than the level of the second look


def test_a_level_that_won_once_has_won_and_sparser_ones_may_follow() -> None:
    turned = [*GOOD[:10], *UNSURE[10:]]
    later = [*UNSURE[:10], *varied(10, 0.97)]
    assert states(rows_of([turned, later]), 10) == ["winning 10", "cannot tell None"]
    assert judge(rows_of([turned]), 20, LOOKS)[1].state == "cannot tell"
    assert states(rows_of([turned, BAD]), 20) == ["winning 10", "not winning None"]
    assert states(rows_of([turned, GOOD]), 20) == ["winning 10", "winning 10"]
    late = [*BAD[:1], *varied(19)]
    assert states(rows_of([turned, late]), 20) == ["winning 10", "winning 20"]


def test_unfinished_replicates_leave_earlier_looks_as_they_are() -> None:
    rows = [row for row in rows_of([GOOD]) if row.replicate < 13]
    assert [each.won_at for each in judge_looks(rows, 20, LOOKS)[1:]] == [10]
    found = judge_looks([row for row in rows if row.replicate < 7], 10, LOOKS)[1]
    assert (found.state, found.reason) == ("cannot tell", "7 of 10 replicates")


def test_the_advice_is_the_next_look() -> None:
    rows = rows_of([UNSURE])
    for n, expected in ((5, "10 replicates"), (10, "20 replicates"), (20, ADVICE_LAST)):
        found = judge_looks([row for row in rows if row.replicate < n], n, LOOKS)[1]
        assert (found.state, found.more_replicates) == ("cannot tell", None)
        assert expected in found.advice


def test_the_conclusion_names_the_look() -> None:
    criteria = {"margin": 0.01, "looks": [5, 10, 20]}
    recipe = tiny(replicates=20, controls={}, verdict=criteria)
    won = build_summary(Results(recipe, rows_of([[*GOOD[:10], *UNSURE[10:]]]), True, Tally()))
    assert won.smallest_winning
    assert won.smallest_winning.verdict.won_at == 10
    for fact in ("won at 10", "look 2 of 3", f"{look_levels(LOOKS)[10]:.2g}"):
        assert fact in conclusion(won)
    open_ = build_summary(Results(recipe, rows_of([UNSURE]), True, Tally()))
    assert "look 3 of 3" in conclusion(open_)
    assert "planned look" in advice(open_.levels[1].verdict)
    assert open_.looks
    assert open_.looks.error_rate == pytest.approx(0.05)


def test_an_experiment_extended_after_it_was_finished_says_its_error_rate() -> None:
    once = Results(
        tiny(replicates=20), rows_of([GOOD]), True, Tally(), stages=[Stage(replicates=20, levels=1, runs=40)]
    )
    assert build_summary(once).looks is None
    stages = [Stage(replicates=n, levels=1, runs=2 * n) for n in (5, 10, 10, 20)]
    extended = build_summary(replace(once, stages=stages))
    assert extended.looks
    assert (extended.looks.planned, extended.looks.replicates) == (False, [5, 10, 20])
    assert extended.looks.error_rate == pytest.approx(error_rate((5, 10, 20), 0.05))
    assert any("10.7%" in line for line in warnings(extended))
    planned = replace(once, stages=stages, config=tiny(replicates=20, verdict={"looks": [5, 10, 20]}))
    assert not any("extended" in line for line in warnings(build_summary(planned)))


@pytest.mark.parametrize("case", PLANNED[:1], ids=["accuracy"])
def test_false_winners_are_rare_over_all_looks(case: Case) -> None:
    small = replace(case, replicates=11, looks=(6, 8, 11))
    assert small.winning(400) < 0.05 + 4 * (0.05 * 0.95 / 400) ** 0.5
