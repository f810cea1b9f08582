from __future__ import annotations

from collections.abc import Sequence

import pytest

from tombola.experiments.row import Row
from tombola.experiments.sections import VerdictSection
from tombola.runs.outcome import Measures
from tombola.stats.verdict import Verdict, judge, smallest_winning

CRITERIA = VerdictSection(accuracy_margin=0.01, stop_margin=0.05)


def row(
    replicate: int, level: int, accuracy: float, stop: int, *, iterations: int = 1000, branch: str = "ticket"
) -> Row:
    measures = Measures(
        diverged=False,
        iterations=iterations,
        stop_iteration=stop,
        validation_loss_at_stop=0.1,
        validation_accuracy_at_stop=accuracy,
        train_accuracy_at_stop=1.0,
        test_accuracy_at_stop=accuracy,
        train_accuracy=1.0,
        test_accuracy=accuracy,
    )
    return Row(replicate, level, branch, 0, 1000 // 2**level, 1000, "key", measures)


def experiment(accuracies: Sequence[float], stops: Sequence[int], level: int = 2) -> list[Row]:
    """Dense networks of accuracy 0.95 that stop at 500, and a ticket for each."""
    dense = [row(replicate, 0, 0.95, 500) for replicate in range(len(accuracies))]
    pairs = zip(accuracies, stops, strict=True)
    return dense + [row(replicate, level, a, s) for replicate, (a, s) in enumerate(pairs)]


def verdict(accuracies: Sequence[float], stops: Sequence[int], **changes: float) -> Verdict:
    criteria = CRITERIA.model_copy(update=changes)
    return judge(experiment(accuracies, stops), len(accuracies), criteria)[-1]


def test_a_ticket_that_matches_in_both_wins() -> None:
    found = verdict([0.951, 0.949, 0.952, 0.950, 0.951], [300, 320, 280, 310, 290])
    assert found.accurate
    assert found.fast
    assert found.few
    assert found.winning


def test_a_shortfall_beyond_the_margin_is_not_accurate() -> None:
    found = verdict([0.931, 0.929, 0.932, 0.930, 0.931], [300] * 5)
    assert (found.accurate, found.fast, found.winning) == (False, True, False)


def test_a_later_stop_is_not_fast() -> None:
    found = verdict([0.95] * 5, [600, 620, 610, 605, 615])
    assert (found.accurate, found.fast, found.winning) == (True, False, False)


def test_a_difference_within_the_margin_must_also_be_sure() -> None:
    assert verdict([0.945] * 5, [500] * 5).accurate
    assert not verdict([0.965, 0.925, 0.965, 0.925, 0.945], [500] * 5).accurate  # the same mean, too uncertain


def test_a_minimum_at_the_last_iteration_is_not_an_early_stop() -> None:
    late = [row(r, 0, 0.95, 1000) for r in range(5)], [row(r, 2, 0.95, 1000) for r in range(5)]
    early = [row(r, 0, 0.95, 980 - r) for r in range(5)], [row(r, 2, 0.95, 900 - r) for r in range(5)]
    assert judge(early[0] + early[1], 5, CRITERIA)[-1].fast
    assert judge(late[0] + early[1], 5, CRITERIA)[-1].fast  # the dense network would have stopped later still
    for dense, tickets in ((late[0], late[1]), (early[0], late[1])):
        found = judge(dense + tickets, 5, CRITERIA)[-1]
        assert not found.fast
        assert "did not stop early" in found.reason
        assert found.instead == "Train longer."


def test_many_weights_do_not_win() -> None:
    found = judge(experiment([0.96] * 5, [300] * 5, level=1), 5, CRITERIA.model_copy(update={"max_density": 0.4}))[-1]
    assert (found.accurate, found.fast, found.few, found.winning) == (True, True, False, False)


@pytest.mark.parametrize("replicates", [1, 2])
def test_one_or_two_replicates_prove_nothing(replicates: int) -> None:
    found = verdict([0.99] * replicates, [100] * replicates)
    assert (found.accurate, found.fast) == (False, False)


@pytest.mark.parametrize("what", ["missing", "ticket diverged", "dense diverged"])
def test_a_replicate_that_did_not_make_it_counts_against_the_level(what: str) -> None:
    rows = experiment([0.96] * 5, [300] * 5)
    if what == "missing":
        rows.pop()
    else:
        index = -1 if what == "ticket diverged" else 0
        lost = rows[index]
        rows[index] = Row(**{**lost.__dict__, "measures": Measures(diverged=True, iterations=10)})
    found = judge(rows, 5, CRITERIA)[-1]
    assert (found.accurate, found.fast, found.winning) == (False, False, False)
    assert found.state == ("cannot tell" if what == "missing" else "not winning")


def test_controls_are_not_judged_as_tickets() -> None:
    rows = [*experiment([0.90] * 5, [300] * 5), *(row(r, 2, 0.99, 100, branch="reinit") for r in range(5))]
    assert not judge(rows, 5, CRITERIA)[-1].winning


def test_pairs_are_formed_by_replicate_whatever_the_order_of_rows() -> None:
    rows = [
        *(row(r, 0, 0.80 + 0.04 * r, 500) for r in range(5)),
        *(row(r, 2, 0.80 + 0.04 * r, 400) for r in reversed(range(5))),
    ]
    assert judge(rows, 5, CRITERIA)[-1].winning  # replicates differ widely, pairs do not


def test_levels_behind_the_first_that_does_not_win_do_not_win() -> None:
    rows = experiment([0.95] * 5, [300] * 5, level=1)
    rows += [row(r, 2, 0.95, 300) for r in range(5)]
    rows += [row(r, 3, 0.80, 300) for r in range(5)]
    rows += [row(r, 4, 0.95, 300) for r in range(5)]
    verdicts = judge(rows, 5, CRITERIA)
    assert [v.level for v in verdicts if v.winning] == [1, 2]
    behind = verdicts[4]
    assert (behind.accurate, behind.fast, behind.state) == (True, True, "cannot tell")
    assert behind.reason == "level 3 does not win"
    assert smallest_winning(verdicts) == verdicts[2]
    assert smallest_winning(verdicts[:1]) is None


def test_the_sequence_begins_where_there_are_far_fewer_weights() -> None:
    rows = experiment([0.80] * 5, [300] * 5, level=1)  # 50%, and no match
    rows += [row(r, 2, 0.95, 300) for r in range(5)]
    verdicts = judge(rows, 5, CRITERIA.model_copy(update={"max_density": 0.3}))
    assert [v.level for v in verdicts if v.winning] == [2]


def test_it_says_why_and_how_many_more_replicates_would_decide() -> None:
    assert verdict([0.93, 0.931, 0.929, 0.93, 0.932], [300] * 5).reason == "less accurate"
    assert verdict([0.95] * 5, [700, 720, 710, 690, 700]).reason == "slower"
    unsure = verdict([0.965, 0.930, 0.965, 0.930, 0.95], [300] * 5)
    assert (unsure.state, unsure.reason) == ("cannot tell", "accuracy")
    assert unsure.more is not None
    surer = verdict([0.960, 0.938, 0.960, 0.938, 0.95], [300] * 5)
    assert surer.more is not None
    assert 1 <= surer.more < unsure.more
    at_the_margin = verdict([0.95, 0.93, 0.95, 0.93, 0.94], [300] * 5)
    assert (at_the_margin.state, at_the_margin.more) == ("cannot tell", None)  # no number would
    late = judge([*(row(r, 0, 0.95, 900) for r in range(5)), *(row(r, 2, 0.95, 1000) for r in range(5))], 5, CRITERIA)
    assert (late[1].state, late[1].more) == ("not winning", None)  # later, whatever more it were
    some = [1000, 400, 410, 420, 430]
    late = judge(
        [*(row(r, 0, 0.95, 900) for r in range(5)), *(row(r, 2, 0.95, some[r]) for r in range(5))], 5, CRITERIA
    )
    assert late[1].reason == "1 of 5 did not stop early"


def with_control(accuracy: float, stop: int) -> list[Row]:
    rows = experiment([0.95, 0.951, 0.949, 0.952, 0.95], [300, 310, 290, 300, 305])
    return rows + [row(r, 2, accuracy + 0.001 * (r % 3), stop + 10 * (r % 2), branch="reinit") for r in range(5)]


def test_a_ticket_must_be_better_than_its_control_in_something() -> None:
    for better in (with_control(0.93, 300), with_control(0.95, 500)):
        found = judge(better, 5, CRITERIA)[-1]
        assert found.winning
        assert found.better == pytest.approx(1 / 32)
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
        assert (found.state, found.better) == ("cannot tell", None)
        assert found.reason == f"reinit in {there} of 5 replicates"
    assert judge(some, 5, CRITERIA)[-1].state == "cannot tell"  # it was trained, so it counts
    diverged = [
        Row(**{**r.__dict__, "measures": Measures(diverged=True, iterations=10)}) if r.branch == "reinit" else r
        for r in whole
    ]
    assert judge(diverged, 5, CRITERIA)[-1].reason == "reinit in 0 of 5 replicates"
    elsewhere = [*whole, *(row(r, 3, 0.95, 300) for r in range(5))]
    found = judge(elsewhere, 5, CRITERIA, lambda level: level == 2)[-1]
    assert found.winning
    assert found.better is None  # of this level nothing is known of the initial weights


def test_where_evaluations_are_too_far_apart_for_the_margin_a_ticket_must_be_sooner() -> None:
    dense = [row(r, 0, 0.95, 100) for r in range(6)]
    as_soon = [row(r, 2, 0.95, 100) for r in range(6)]
    assert not judge(dense + as_soon, 6, CRITERIA)[-1].fast
    finer = [row(r, 0, 0.95, 2000 + 100 * (r % 2)) for r in range(6)]
    as_soon = [row(r, 2, 0.95, 2000 + 100 * (r % 2)) for r in range(6)]
    assert judge(finer + as_soon, 6, CRITERIA)[-1].fast
    sooner = [row(r, 2, 0.95, 100) for r in range(6)]
    assert judge([*(row(r, 0, 0.95, 200) for r in range(6)), *sooner], 6, CRITERIA)[-1].fast


def test_the_dense_network_itself_is_no_ticket() -> None:
    assert not judge(experiment([0.95] * 5, [300] * 5), 5, CRITERIA)[0].winning
