from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tombola.evidence.verdict import Criteria, Verdict, judge, smallest_winning
from tombola.outcome import Measures
from tombola.table import Row

CRITERIA = Criteria(accuracy_margin=0.01, stop_margin=0.05)


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


def test_the_bounds_are_one_sided() -> None:
    found = verdict([0.96, 0.94, 0.96, 0.94, 0.95], [500] * 5)
    assert found.accuracy_difference is not None
    assert found.accuracy_difference.low == pytest.approx(-2.1318 * 0.01 / 5**0.5, rel=1e-3)  # t(0.95, 4 d.f.)


def test_a_minimum_at_the_last_iteration_is_not_an_early_stop() -> None:
    dense = [row(r, 0, 0.95, 1000) for r in range(3)]
    tickets = [row(r, 2, 0.95, 1000) for r in range(3)]
    assert not judge(dense + tickets, 3, CRITERIA)[-1].fast
    tickets = [row(r, 2, 0.95, 900) for r in range(3)]
    assert judge(dense + tickets, 3, CRITERIA)[-1].fast


def test_many_weights_do_not_win() -> None:
    found = judge(experiment([0.96] * 5, [300] * 5, level=1), 5, CRITERIA.model_copy(update={"few": 0.4}))[-1]
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
    assert found.accuracy_difference is None


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
    assert (verdicts[4].accurate, verdicts[4].fast, verdicts[4].reached) == (True, True, False)
    found = smallest_winning(verdicts)
    assert found is not None
    assert found.level == 2
    assert smallest_winning(verdicts[:1]) is None
    assert smallest_winning([]) is None


def test_the_sequence_begins_where_there_are_far_fewer_weights() -> None:
    rows = experiment([0.80] * 5, [300] * 5, level=1)  # 50%, and no match
    rows += [row(r, 2, 0.95, 300) for r in range(5)]
    verdicts = judge(rows, 5, CRITERIA.model_copy(update={"few": 0.3}))
    assert [v.level for v in verdicts if v.winning] == [2]


@pytest.mark.slow
def test_a_false_winner_is_called_in_at_most_5_percent_of_experiments() -> None:
    """Eight levels, each exactly at the margin of accuracy and faster beyond doubt: none is a winner."""
    generator, false, experiments = np.random.default_rng(0), 0, 4000
    for _ in range(experiments):
        dense = generator.normal(0.95, 0.003, 8)
        rows = [row(r, 0, float(a), 500) for r, a in enumerate(dense)]
        for level in range(1, 9):
            tickets = dense - 0.01 + generator.normal(0, 0.004, 8)
            rows += [row(r, level, float(a), 300) for r, a in enumerate(tickets)]
        false += smallest_winning(judge(rows, 8, CRITERIA)) is not None
    assert false / experiments < 0.05 + 3 * (0.05 * 0.95 / experiments) ** 0.5


def test_the_dense_network_itself_is_no_ticket() -> None:
    assert not judge(experiment([0.95] * 5, [300] * 5), 5, CRITERIA)[0].winning
