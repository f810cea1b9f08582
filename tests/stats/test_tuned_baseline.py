from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.baselines import WINNING, baseline_row, baseline_rows, tuned_summary
from tests.support.recipes import tiny
from tests.support.verdict_rows import diverged, experiment_rows
from tombola.experiments.results import Results
from tombola.experiments.results_schema import Row, Tally
from tombola.experiments.sections import VerdictSection
from tombola.runs.outcome import Measures
from tombola.stats.summary import BaselineComparison, BaselineSummary, Summary
from tombola.stats.tuned_baseline import TunedBaseline

WORSE = [accuracy - 0.03 for accuracy in WINNING]


def baseline_of(summary: Summary) -> BaselineSummary:
    assert summary.baseline is not None
    return summary.baseline


def comparison(summary: Summary, index: int = -1) -> BaselineComparison:
    found = summary.levels[index].verdict.tuned_baseline
    assert found is not None
    return found


def best(rows: list[Row], others: int, replicates: int = 5) -> int | None:
    return tuned_baseline(rows, others, replicates).best


def tuned_baseline(rows: list[Row], others: int, replicates: int) -> TunedBaseline:
    rates = [0.01 * (1 + draw) for draw in range(others)]
    found = TunedBaseline.of(Results(tiny(replicates=replicates, baseline={"lr": rates}), rows, True, Tally()))
    assert found is not None
    return found


DENSE = experiment_rows(WINNING, [300] * 5)[:5]
"""95% in validation and test."""


def test_validation_chooses_the_best_training_and_not_the_test_set() -> None:
    assert best(DENSE + baseline_rows([(0.96, 0.90), (0.94, 0.99)]), others=2) == 1
    assert best(DENSE + baseline_rows([(0.94, 0.99), (0.96, 0.90)]), others=2) == 2
    assert best(DENSE + baseline_rows([(0.94, 0.99)]), others=1) == 0


def test_the_mean_over_replicates_counts() -> None:
    rows = [baseline_row(r, 0, 0.99 if r == 0 else 0.945, 0.95) for r in range(5)]
    assert best(DENSE + rows, others=1) == 1  # on average 0.954
    rows[0] = baseline_row(0, 0, 0.96, 0.95)
    assert best(DENSE + rows, others=1) == 0  # 0.948, although the highest of all is among them


def test_of_equal_trainings_the_first_is_chosen() -> None:
    assert best(DENSE + baseline_rows([(0.95, 0.99)]), others=1) == 0
    assert best(DENSE + baseline_rows([(0.96, 0.95), (0.96, 0.99)]), others=2) == 1


def test_nothing_is_chosen_until_all_are_trained() -> None:
    rows = DENSE + baseline_rows([(0.96, 0.96), (0.94, 0.94)])
    assert best(rows, others=2) == 1
    assert best(rows[:-1], others=2) is None
    assert best(rows[1:], others=2) is None
    assert best(rows, others=3) is None


def test_a_training_that_diverges_is_not_chosen() -> None:
    rows = baseline_rows([(0.99, 0.99), (0.96, 0.96)])
    assert best([*DENSE, diverged(rows[0]), *rows[1:]], others=2) == 2
    assert best([diverged(DENSE[0]), *DENSE[1:], *rows], others=2) == 1
    assert best([diverged(row) for row in DENSE + rows], others=2) is None


def test_tickets_are_compared_with_the_best_replicate_by_replicate() -> None:
    summary = tuned_summary([(0.96, 0.97), (0.94, 0.99)])
    assert baseline_of(summary).best == 1
    found = comparison(summary)
    assert (found.training, found.mean) == ("lr = 0.01", pytest.approx(-0.02))
    assert (found.accurate, found.worse) == (False, True)
    assert found.p_not_worse == 1.0
    assert summary.levels[0].verdict.tuned_baseline is None


def test_the_best_may_be_the_training_of_the_tickets() -> None:
    summary = tuned_summary([(0.94, 0.99)])
    assert baseline_of(summary).best == 0
    found, dense = comparison(summary), summary.levels[-1].verdict.difference
    assert dense is not None
    assert found.model_dump(include=set(dense.model_dump())) == dense.model_dump()
    assert found.accurate == summary.levels[-1].verdict.accurate is True


@pytest.mark.parametrize(
    ("test_accuracy", "accurate", "worse"), [(0.955, True, False), (0.96, False, False), (0.97, False, True)]
)
def test_margin_and_error_rate_are_those_of_the_verdict(test_accuracy: float, accurate: bool, worse: bool) -> None:
    found = comparison(tuned_summary([(0.96, test_accuracy)]))
    assert (found.accurate, found.worse) == (accurate, worse)


def test_too_few_or_missing_replicates_decide_nothing() -> None:
    rows = experiment_rows([0.95, 0.951], [300] * 2) + baseline_rows([(0.96, 0.99)], replicates=2)
    tuned = tuned_baseline(rows, 1, 2)
    criteria = VerdictSection(margin=0.01)
    found = tuned.compare({row.replicate: [row] for row in rows if row.level}, criteria.alpha)
    assert found is not None
    assert found.gain.p_below(-0.01) <= criteria.alpha
    assert tuned.decide(found, criteria.margin) == (False, False)
    missing = tuned_summary([(0.96, 0.99)], change=lambda rows: rows[:-1])
    assert (comparison(missing).accurate, comparison(missing).worse) == (False, False)


def test_the_verdict_is_about_the_dense_network_trained_as_the_ticket() -> None:
    plain = tuned_summary([])
    for figures in ((0.99, 0.99), (0.5, 0.5)):
        summary = tuned_summary([figures])
        for one, other in zip(summary.levels, plain.levels, strict=True):
            assert one.branches == other.branches
            assert one.verdict.model_copy(update={"tuned_baseline": None}) == other.verdict
    assert plain.levels[-1].verdict.state == "winning"
    assert plain.baseline is None


def test_evaluations_of_other_trainings_do_not_set_the_margin_of_early_stops() -> None:
    def other_stops(rows: list[Row]) -> list[Row]:
        """An odd iteration: as if it was evaluated more often than the tickets."""
        odd = {"stop_iteration": 501}
        return [
            replace(r, measures=Measures(**r.measures.model_dump() | odd)) if r.branch == "baseline" else r
            for r in rows
        ]

    assert tuned_summary([(0.9, 0.9)]).levels[-1].verdict.stop_margin == 0  # evaluated every 100 iterations
    assert tuned_summary([(0.9, 0.9)], change=other_stops).levels[-1].verdict.stop_margin == 0


def test_levels_are_compared_in_order_until_one_is_worse() -> None:
    def smallest(*tickets: list[float]) -> int | None:
        summary = tuned_summary([(0.96, 0.955)], {1 + index: each for index, each in enumerate(tickets)})
        assert all(level.verdict.winning for level in summary.levels[1:])
        return baseline_of(summary).smallest_winning

    # Within a point of the dense network, but not of its best training.
    between = [accuracy - 0.007 for accuracy in WINNING]
    assert smallest(WINNING, WINNING) == 2
    assert smallest(WINNING, between) == 1
    assert smallest(between, WINNING) is None


def test_levels_that_do_not_win_do_not_count() -> None:
    summary = tuned_summary([(0.96, 0.93)], {1: WORSE})
    assert comparison(summary).mean == pytest.approx(-0.01)
    better = tuned_summary([(0.96, 0.90)], {1: WORSE})
    assert comparison(better).accurate
    assert baseline_of(better).smallest_winning is None


def test_the_summary_has_every_training_and_new_keys_only_with_a_baseline() -> None:
    late = [baseline_row(0, 0, 0.96, 0.955, iterations=500)]
    given = tuned_summary([(0.96, 0.955)], change=lambda rows: [*late, *rows[:5], *rows[6:]])
    summary = given.to_dict()
    assert summary["baseline"] | {"best": 1, "smallest_winning": 2} == summary["baseline"]
    own, other = summary["baseline"]["trainings"]
    assert (own["training"], own["without_early_stop"]) == ("lr = 0.005", 0)
    assert (other["training"], other["without_early_stop"]) == ("lr = 0.01", 1)
    assert other["figures"]["validation_accuracy_at_stop"]["mean"] == pytest.approx(0.96)
    assert summary["levels"][-1]["verdict"]["tuned_baseline"]["accurate"] is True
    plain = tuned_summary([]).to_dict()
    assert plain["baseline"] is None
    assert not any("tuned_baseline" in level["verdict"] for level in plain["levels"])
