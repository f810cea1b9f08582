from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.stats.simulation import EXPERIMENTS, NULLS, PLANNED, STRONG, Case
from tests.support.verdict_rows import diverged, experiment_rows, verdict_row
from tombola.experiments.margin import Margin
from tombola.experiments.results_schema import Row
from tombola.experiments.sections import VerdictSection
from tombola.stats.verdict import Verdict, judge, smallest_winning

CRITERIA = VerdictSection(margin=Margin(0.01), stop_margin=0.05)


def verdict(accuracies: Sequence[float], stops: Sequence[int], **changes: float) -> Verdict:
    criteria = CRITERIA.model_copy(update=changes)
    return judge(experiment_rows(accuracies, stops), len(accuracies), criteria)[-1]


@pytest.mark.parametrize(
    ("accuracies", "stops", "accurate", "fast"),
    [
        ([0.951, 0.949, 0.952, 0.950, 0.951], [300, 320, 280, 310, 290], True, True),
        ([0.931, 0.929, 0.932, 0.930, 0.931], [300] * 5, False, True),
        ([0.95] * 5, [600, 620, 610, 605, 615], True, False),
    ],
)
def test_a_ticket_wins_if_it_is_accurate_and_fast(
    accuracies: list[float], stops: list[int], accurate: bool, fast: bool
) -> None:
    found = verdict(accuracies, stops)
    assert found.sparse_enough
    assert (found.accurate, found.fast, found.winning) == (accurate, fast, accurate and fast)
    assert not judge(experiment_rows(accuracies, stops), 5, CRITERIA)[0].winning  # the dense network is no ticket


def test_a_difference_within_the_margin_must_be_significant() -> None:
    assert verdict([0.945] * 5, [500] * 5).accurate
    assert not verdict([0.965, 0.925, 0.965, 0.925, 0.945], [500] * 5).accurate  # the same mean, too uncertain


def test_a_minimum_at_the_last_iteration_is_not_an_early_stop() -> None:
    late = [verdict_row(r, 0, 0.95, 1000) for r in range(5)], [verdict_row(r, 2, 0.95, 1000) for r in range(5)]
    early = [verdict_row(r, 0, 0.95, 980 - r) for r in range(5)], [verdict_row(r, 2, 0.95, 900 - r) for r in range(5)]
    assert judge(early[0] + early[1], 5, CRITERIA)[-1].fast
    assert judge(late[0] + early[1], 5, CRITERIA)[-1].fast  # the dense network would stop even later
    for dense, tickets in ((late[0], late[1]), (early[0], late[1])):
        found = judge(dense + tickets, 5, CRITERIA)[-1]
        assert not found.fast
        assert "did not stop early" in found.reason
        assert found.advice == "Train longer."


def test_too_many_weights_do_not_win() -> None:
    found = verdict([0.96] * 5, [300] * 5, max_density=0.2)
    assert (found.accurate, found.fast, found.sparse_enough, found.winning) == (True, True, False, False)


@pytest.mark.parametrize("replicates", [1, 2])
def test_one_or_two_replicates_prove_nothing(replicates: int) -> None:
    found = verdict([0.99] * replicates, [100] * replicates)
    assert (found.accurate, found.fast) == (False, False)


@pytest.mark.parametrize("what", ["missing", "ticket diverged", "dense diverged"])
def test_a_missing_or_diverged_replicate_prevents_winning(what: str) -> None:
    rows = experiment_rows([0.96] * 5, [300] * 5)
    if what == "missing":
        rows.pop()
    else:
        index = -1 if what == "ticket diverged" else 0
        rows[index] = diverged(rows[index])
    found = judge(rows, 5, CRITERIA)[-1]
    assert (found.accurate, found.fast, found.winning) == (False, False, False)
    assert found.state == ("cannot tell" if what == "missing" else "not winning")


def test_controls_are_not_judged_as_tickets() -> None:
    controls = [verdict_row(r, 2, 0.99, 100, branch="reinit") for r in range(5)]
    assert not judge(experiment_rows([0.90] * 5, [300] * 5) + controls, 5, CRITERIA)[-1].winning


def test_rows_are_paired_by_replicate_in_any_order() -> None:
    dense = [verdict_row(r, 0, 0.80 + 0.04 * r, 500) for r in range(5)]
    tickets = [verdict_row(r, 2, 0.80 + 0.04 * r, 400) for r in reversed(range(5))]
    assert judge(dense + tickets, 5, CRITERIA)[-1].winning  # replicates differ widely, pairs do not


def test_testing_stops_at_the_first_level_that_does_not_win() -> None:
    rows = experiment_rows([0.95] * 5, [300] * 5, level=1)
    rows += [verdict_row(r, 2, 0.95, 300) for r in range(5)]
    rows += [verdict_row(r, 3, 0.80, 300) for r in range(5)]
    rows += [verdict_row(r, 4, 0.95, 300) for r in range(5)]
    verdicts = judge(rows, 5, CRITERIA)
    assert [v.level for v in verdicts if v.winning] == [1, 2]
    behind = verdicts[4]
    assert (behind.accurate, behind.fast, behind.state) == (True, True, "cannot tell")
    assert behind.reason == "level 3 does not win"
    assert smallest_winning(verdicts) == verdicts[2]
    assert smallest_winning(verdicts[:1]) is None


def test_testing_starts_at_the_first_level_that_is_sparse_enough() -> None:
    rows = experiment_rows([0.80] * 5, [300] * 5, level=1)  # 50%, and no match
    rows += [verdict_row(r, 2, 0.95, 300) for r in range(5)]
    verdicts = judge(rows, 5, CRITERIA.model_copy(update={"max_density": 0.3}))
    assert [v.level for v in verdicts if v.winning] == [2]


def test_reasons_and_the_number_of_more_replicates() -> None:
    assert verdict([0.93, 0.931, 0.929, 0.93, 0.932], [300] * 5).reason == "less accurate"
    assert verdict([0.95] * 5, [700, 720, 710, 690, 700]).reason == "slower"
    unsure = verdict([0.965, 0.930, 0.965, 0.930, 0.95], [300] * 5)
    assert (unsure.state, unsure.reason) == ("cannot tell", "accuracy")
    assert unsure.more_replicates is not None
    surer = verdict([0.960, 0.938, 0.960, 0.938, 0.95], [300] * 5)
    assert surer.more_replicates is not None
    assert 1 <= surer.more_replicates < unsure.more_replicates
    at_the_margin = verdict([0.95, 0.93, 0.95, 0.93, 0.94], [300] * 5)
    assert (at_the_margin.state, at_the_margin.more_replicates) == ("cannot tell", None)  # no number would decide
    dense = [verdict_row(r, 0, 0.95, 900) for r in range(5)]
    late = judge(dense + [verdict_row(r, 2, 0.95, 1000) for r in range(5)], 5, CRITERIA)
    assert (late[1].state, late[1].more_replicates) == ("not winning", None)  # later in any case
    stops = [1000, 400, 410, 420, 430]
    late = judge(dense + [verdict_row(r, 2, 0.95, stop) for r, stop in enumerate(stops)], 5, CRITERIA)
    assert late[1].reason == "1 of 5 did not stop early"


def with_control(accuracy: float, stop: int) -> list[Row]:
    rows = experiment_rows([0.95, 0.951, 0.949, 0.952, 0.95], [300, 310, 290, 300, 305])
    return rows + [
        verdict_row(r, 2, accuracy + 0.001 * (r % 3), stop + 10 * (r % 2), branch="reinit") for r in range(5)
    ]


def test_a_ticket_must_be_better_than_its_control() -> None:
    for better in (with_control(0.93, 300), with_control(0.95, 500)):
        found = judge(better, 5, CRITERIA)[-1]
        assert found.winning
        assert found.p_better_than_control == pytest.approx(1 / 32)
        assert set(found.controls) == {"reinit"}
    same = judge(with_control(0.95, 300), 5, CRITERIA)[-1]
    assert (same.accurate, same.fast, same.state) == (True, True, "cannot tell")
    assert same.reason == "no better than reinit"
    assert judge(with_control(0.95, 300), 5, CRITERIA.model_copy(update={"control": "random"}))[-1].winning
    worse = judge(with_control(0.97, 200), 5, CRITERIA)[-1]
    assert (worse.state, worse.reason) == ("not winning", "worse than reinit")


def test_a_control_is_needed_in_every_replicate_and_at_the_level_itself() -> None:
    whole = with_control(0.9, 500)
    some = [r for r in whole if r.branch == "ticket" or r.replicate < 3]
    for rows, there in ((some, 3), ([r for r in whole if r.branch == "ticket"], 0)):
        found = judge(rows, 5, CRITERIA, lambda level: level == 2)[-1]
        assert (found.state, found.p_better_than_control) == ("cannot tell", None)
        assert found.reason == f"reinit in {there} of 5 replicates"
    assert judge(some, 5, CRITERIA)[-1].state == "cannot tell"  # it was trained, so it counts
    lost = [diverged(r) if r.branch == "reinit" else r for r in whole]
    assert judge(lost, 5, CRITERIA)[-1].reason == "reinit in 0 of 5 replicates"
    elsewhere = [*whole, *(verdict_row(r, 3, 0.95, 300) for r in range(5))]
    found = judge(elsewhere, 5, CRITERIA, lambda level: level == 2)[-1]
    assert found.winning
    assert found.p_better_than_control is None  # the control was not trained at this level


def test_a_ticket_must_be_sooner_if_evaluations_are_further_apart_than_the_margin() -> None:
    dense = [verdict_row(r, 0, 0.95, 100) for r in range(6)]
    as_soon = [verdict_row(r, 2, 0.95, 100) for r in range(6)]
    assert not judge(dense + as_soon, 6, CRITERIA)[-1].fast
    finer = [verdict_row(r, 0, 0.95, 2000 + 100 * (r % 2)) for r in range(6)]
    as_soon = [verdict_row(r, 2, 0.95, 2000 + 100 * (r % 2)) for r in range(6)]
    assert judge(finer + as_soon, 6, CRITERIA)[-1].fast
    sooner = [verdict_row(r, 2, 0.95, 100) for r in range(6)]
    assert judge([*(verdict_row(r, 0, 0.95, 200) for r in range(6)), *sooner], 6, CRITERIA)[-1].fast


def named(case: Case) -> str:
    return f"{case.what}-{case.replicates}"


@pytest.mark.slow
@pytest.mark.parametrize("case", [*NULLS, *PLANNED], ids=named)
def test_a_false_winner_is_called_in_at_most_5_percent_of_experiments(case: Case) -> None:
    assert case.winning(EXPERIMENTS) < 0.05 + 3 * (0.05 * 0.95 / EXPERIMENTS) ** 0.5


@pytest.mark.parametrize("case", [case for case in NULLS if case.replicates == 5][1::2], ids=named)
def test_false_winners_are_rare(case: Case) -> None:
    """A small version of the same for every test run; each case tests another statement of the verdict."""
    assert case.winning(400) < 0.05 + 4 * (0.05 * 0.95 / 400) ** 0.5


def test_5_replicates_are_enough_for_a_strong_ticket() -> None:
    assert STRONG[1].replicates == 5
    assert STRONG[1].winning(100) > 0.9
