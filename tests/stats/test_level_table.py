from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola.experiments.results_schema import Row
from tombola.report.printable_level_table import PrintableLevelTable
from tombola.runs.outcome import Measures
from tombola.stats.direction import Minimize
from tombola.stats.level_table import LevelTable


def row(replicate: int, level: int, branch: str, weights: int, figures: dict[str, float], draw: int = 0) -> Row:
    measures = Measures(diverged=False, iterations=0)
    return Row(replicate, level, branch, draw, weights, 1000, "key", measures, figures)


def table(dense: list[float], *tickets: list[float], margin: float = 0.01, **controls: list[float]) -> LevelTable:
    """Levels of half the weights each; one figure for each replicate."""
    levels = PrintableLevelTable(margin)
    for level, values in enumerate([dense, *tickets]):
        levels.results += [
            row(replicate, level, "ticket", 1000 // 2**level, {"accuracy": value})
            for replicate, value in enumerate(values)
        ]
    for branch, values in controls.items():
        levels.results += [row(r, 1, branch, 500, {"accuracy": v}) for r, v in enumerate(values)]
    return levels


def test_a_ticket_matches_if_the_test_shows_it_within_the_margin() -> None:
    dense = [0.90, 0.91, 0.92, 0.93, 0.94]
    levels = table(dense, [d + 0.001 for d in dense], [d - 0.05 for d in dense])
    assert [level.state for level in levels] == ["dense", "matches", "worse"]
    assert levels.sparsest_match == levels[1]
    assert levels[1].difference == pytest.approx(0.001)
    assert levels[2].low == pytest.approx(-0.05)
    assert levels[1].weights_left == 0.5


def test_a_ticket_worse_by_less_than_the_margin_matches() -> None:
    dense = [0.90, 0.91, 0.92, 0.93, 0.94]
    ticket = [d - 0.006 - 0.001 * r for r, d in enumerate(dense)]  # from 0.6 to 1 points below
    assert table(dense, ticket, margin=0.012)[1].state == "matches"
    assert table(dense, ticket, margin=0.008)[1].state == "cannot tell"
    assert table(dense, ticket, margin=0.005)[1].state == "worse"
    levels = table(dense, ticket, margin=0.012)
    levels.confidence = 0.999  # five replicates cannot reach this confidence
    assert levels[1].state == "cannot tell"


def test_levels_with_missing_replicates_do_not_match() -> None:
    dense = [0.9] * 5
    levels = table(dense, [0.8] * 5, [0.95] * 2)
    assert [level.state for level in levels] == ["dense", "worse", "diverged"]
    assert levels.sparsest_match is None


def test_testing_stops_at_the_first_level_that_does_not_match() -> None:
    dense = [0.9] * 5
    good = [0.91, 0.92, 0.91, 0.92, 0.91]
    levels = table(dense, [0.9, 0.95, 0.85, 0.92, 0.88], good)
    assert [level.state for level in levels] == ["dense", "cannot tell", "cannot tell"]
    assert levels[2].behind == 1
    assert levels.sparsest_match is None
    assert "cannot tell: behind level 1" in str(levels)
    assert table(dense, good, good)[2].state == "matches"
    one_replicate = table([0.9], [0.8], [0.95])
    assert (one_replicate[2].state, one_replicate[2].behind) == ("cannot tell", 1)


@pytest.mark.parametrize(("ticket", "state"), [(0.895, "within the margin"), (0.88, "below the margin")])
def test_one_replicate_is_compared_and_shows_nothing(ticket: float, state: str) -> None:
    levels = table([0.9], [ticket])
    assert levels[1].state == state
    assert levels[1].low is None
    assert "replicates=5" in str(levels)


def test_levels_that_diverged_or_were_not_evaluated_do_not_match() -> None:
    levels = table([0.9] * 3, [0.9] * 3)
    levels.results.append(replace(row(0, 2, "ticket", 250, {}), measures=Measures(diverged=True, iterations=9)))
    levels.results += [row(replicate, 3, "ticket", 125, {}) for replicate in range(3)]
    assert [level.state for level in levels][2:] == ["diverged", "not evaluated"]
    assert not levels[2].matches
    with pytest.raises(IndexError):
        levels[4]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("replicates", [1, 5])
@pytest.mark.parametrize("dense", [False, True])
def test_figures_that_are_not_finite_are_not_compared_and_named(bad: float, replicates: int, dense: bool) -> None:
    good, mixed = [0.9] * replicates, [0.9] * (replicates - 1) + [bad]
    levels = table(mixed, good) if dense else table(good, mixed)
    assert levels[1].state == "not evaluated"
    interval = levels.interval("ticket", 0 if dense else 1)
    assert interval is not None
    assert interval.high is None
    for fact in (f'"accuracy" is {bad:g}', f"replicate {replicates - 1} at level {0 if dense else 1}"):
        assert fact in " ".join(str(levels).split())
        assert fact in levels._repr_html_().replace("&#34;", '"')


def test_a_figure_that_is_missing_at_a_level_is_named() -> None:
    levels = table([0.9], [0.9])
    assert levels.figure_gap == ""
    levels.results[1] = replace(levels.results[1], figures={"loss": 0.1})
    assert levels[1].state == "not evaluated"
    for fact in ('"accuracy"', "loss", "level 1"):
        assert fact in levels.figure_gap
    levels.results[1] = replace(levels.results[1], measures=Measures(diverged=True, iterations=9))
    assert levels.figure_gap == ""  # the level says so itself


def test_draws_of_a_control_are_averaged() -> None:
    levels = table([0.9, 0.9], [0.9, 0.9], reinit=[0.8, 0.8])
    levels.results.append(row(0, 1, "reinit", 500, {"accuracy": 0.6}, draw=1))
    assert levels.values("reinit", 1) == {0: pytest.approx(0.7), 1: 0.8}


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 6).flatmap(
        lambda n: st.lists(st.lists(st.floats(0, 1, width=16), min_size=n, max_size=n), min_size=2, max_size=4)
    ),
    st.sampled_from([0.0, 0.01, 0.3]),
)
def test_minimizing_a_figure_is_maximizing_its_negative(values: list[list[float]], margin: float) -> None:
    lower = table(*values, margin=margin)
    lower.minimize = True
    higher = table(*([-value for value in level] for level in values), margin=margin)
    assert lower.best_replicate(1, range(len(values[0]))) == higher.best_replicate(1, range(len(values[0])))
    for one, other in zip(lower, higher, strict=True):
        assert one.state.replace("above", "below") == other.state
        assert one.matches == other.matches
        assert one.behind == other.behind
        assert one.low is other.high is None
        assert (one.high is None) == (other.low is None)
        if one.level:
            assert one.difference == pytest.approx(-(other.difference or 0))
            assert one.high is None or one.high == pytest.approx(-(other.low or 0))


@pytest.mark.parametrize(
    ("minimize", "state"),
    [(True, "worse"), ("loss", "worse"), (["x", "loss"], "worse"), (False, "matches"), ("accuracy", "matches")],
)
def test_a_higher_loss_is_worse_where_lower_is_better(minimize: Minimize, state: str) -> None:
    levels = PrintableLevelTable(0.01, minimize=minimize)
    for replicate in range(5):
        levels.results += [row(replicate, 0, "ticket", 1000, {"loss": 0.1, "accuracy": 0.9})]
        levels.results += [row(replicate, 1, "ticket", 500, {"loss": 0.3 - replicate / 100, "accuracy": 0.9})]
    assert levels[1].state == state
    assert levels[1].difference == pytest.approx(0.18)
    assert levels.lower_is_better == (state == "worse")
    assert levels.best_replicate(1, range(5)) == (4 if state == "worse" else 0)
    text = str(levels)
    assert ("lower is better" in text) == ("above the dense" in text) == ("at most +" in text) == (state == "worse")
    assert ("higher is better" in text) == ("below the dense" in text) == ("at least +" in text) != (state == "worse")
    assert ("lower is better" in levels._repr_html_()) == (state == "worse")


def test_the_best_replicate_has_a_figure() -> None:
    levels = table([0.9] * 3, [float("nan"), 0.7, 0.8])
    levels.results.append(row(3, 1, "ticket", 500, {}))
    assert levels.best_replicate(1, range(4)) == 2
    assert levels.best_replicate(1, [3]) == 3
    assert levels.best_replicate(2, [1, 0]) == 1


COPIES = {
    "all": [(level, r, "same") for level in (0, 1) for r in range(5)],
    "dense": [(0, r, "same") for r in range(5)],
    "two tickets": [(1, r, "same") for r in (0, 3)],
    "two pairs": [(0, 0, "one"), (0, 1, "one"), (1, 2, "other"), (1, 4, "other")],
}


@pytest.mark.parametrize("kind", COPIES)
def test_replicates_that_are_copies_are_not_tested(kind: str) -> None:
    alike = {(level, replicate): final for level, replicate, final in COPIES[kind]}
    levels = table([0.9] * 5, [0.9] * 5, [0.8] * 5)
    assert levels[1].state == "matches"
    levels.results = [
        replace(r, final={alike.get((r.level, r.replicate), f"{r.level} {r.replicate}"): (0.0, 1.0)})
        for r in levels.results
    ]
    assert [level.state for level in levels] == ["dense", "within the margin", "below the margin"]
    assert levels[1].low is None
    assert levels.copies == sorted({replicate for _, replicate in alike})
    for level in levels:
        assert level.figure is not None
        assert (level.figure.high is None) == any(at == level.level for at, _ in alike)
    for shown in (str(levels), levels._repr_html_()):
        shown = " ".join(shown.split())
        assert f"Replicates {', '.join(map(str, levels.copies))} " in shown
        for fact in ("torch.initial_seed()", "a function that makes it", "without a test"):
            assert fact in shown


def test_copies_of_a_control_have_no_interval() -> None:
    levels = table([0.9] * 5, [0.9] * 5, reinit=[0.8] * 5)
    levels.results = [
        replace(r, final={"same" if r.branch == "reinit" else str(r): (0.0, 1.0)}) for r in levels.results
    ]
    interval = levels.interval("reinit", 1)
    assert interval is not None
    assert interval.high is None
    assert levels.tested


def test_the_table_as_text_and_in_a_notebook() -> None:
    levels = table([0.9, 0.91, 0.92, 0.9, 0.91], [0.9, 0.91, 0.92, 0.9, 0.92], reinit=[0.8] * 5)
    text, html = str(levels), levels._repr_html_()
    for part in ("accuracy", "100%", "50%", "500", "reinit", "0.8000", "matches", "5 replicates"):
        assert part in text
        assert part in html
    assert all(len(line) <= 100 for line in text.splitlines())


def test_figures_do_not_overwrite_columns_and_their_names_are_escaped() -> None:
    levels = PrintableLevelTable(0.01, results=[row(0, 0, "ticket", 10, {"<b>": 1.0, "weights": 0.5})])
    assert "<b>" not in levels._repr_html_()
    assert levels.rows()[0]["weights"] == 10
    assert levels.rows()[0]["figure weights"] == 0.5


def test_rows_are_flat() -> None:
    assert table([0.9]).rows() == [
        {
            "replicate": 0,
            "level": 0,
            "branch": "ticket",
            "draw": 0,
            "weights": 1000,
            "weights_total": 1000,
            "diverged": False,
            "iterations": 0,
            "accuracy": 0.9,
        }
    ]


def test_the_table_also_says_the_weights_left_of_all_matrix_weights() -> None:
    levels = table([0.9], [0.9], [0.9])  # 1000, 500 and 250 weights
    assert [level.weights_left_of_all for level in levels] == [None] * 3
    levels.matrix_weights = 1000
    assert "of all" not in str(levels)
    levels.matrix_weights = 4000
    assert [level.weights_left_of_all for level in levels] == [1, 0.875, 0.8125]
    text = str(levels)
    assert all(fact in text for fact in ("of all", "87.5%", "81.2%"))
    assert "<th>of all</th>" in levels._repr_html_()  # type: ignore[attr-defined]


@pytest.mark.parametrize("base", [0.9, 0.95, 0.9525, 0.97])
def test_a_difference_of_exactly_the_margin_is_a_tie_also_in_float32(base: float) -> None:
    dense = [float(np.float32(base + 0.0025 * r)) for r in range(5)]
    tickets = [float(np.float32(base + 0.0025 * r - 0.01)) for r in range(5)]
    assert table(dense, tickets)[1].state == "cannot tell"
    assert table(dense[:1], tickets[:1])[1].state == "within the margin"


def test_values_of_other_figures_can_be_read() -> None:
    levels = table([0.9, 0.8])
    levels.results = [replace(row, figures=dict(row.figures) | {"test": 0.7}) for row in levels.results]
    assert levels.values("ticket", 0, "test") == {0: 0.7, 1: 0.7}
    assert levels.values("ticket", 0) == {0: 0.9, 1: 0.8}
