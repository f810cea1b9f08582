from __future__ import annotations

import pytest

from tombola.report.level_table import PrintableLevelTable
from tombola.stats.level_table import Answer, LevelTable


def table(dense: list[float], *tickets: list[float], margin: float = 0.01, **controls: list[float]) -> LevelTable:
    """Levels of half the weights each; one figure for each replicate."""
    levels = PrintableLevelTable(margin)
    for level, values in enumerate([dense, *tickets]):
        levels.answers += [
            Answer(replicate, level, "ticket", 0, 1000 // 2**level, 1000, {"accuracy": value})
            for replicate, value in enumerate(values)
        ]
    for branch, values in controls.items():
        levels.answers += [Answer(r, 1, branch, 0, 500, 1000, {"accuracy": v}) for r, v in enumerate(values)]
    return levels


def test_a_ticket_matches_when_it_is_shown_not_to_be_below_the_margin() -> None:
    dense = [0.90, 0.91, 0.92, 0.93, 0.94]
    levels = table(dense, [d + 0.001 for d in dense], [d - 0.05 for d in dense])
    assert [level.state for level in levels] == ["dense", "matches", "worse"]
    assert levels.sparsest_match == levels[1]
    assert levels[1].difference == pytest.approx(0.001)
    assert levels[2].low == pytest.approx(-0.05)
    assert levels[1].weights_left == 0.5


def test_a_ticket_below_the_dense_network_but_within_the_margin_matches() -> None:
    dense = [0.90, 0.91, 0.92, 0.93, 0.94]
    ticket = [d - 0.006 - 0.001 * r for r, d in enumerate(dense)]  # from 0.6 to 1 points below
    assert table(dense, ticket, margin=0.012)[1].state == "matches"
    assert table(dense, ticket, margin=0.008)[1].state == "cannot tell"
    assert table(dense, ticket, margin=0.005)[1].state == "worse"
    levels = table(dense, ticket, margin=0.012)
    levels.confidence = 0.999  # so sure five replicates cannot make us
    assert levels[1].state == "cannot tell"


def test_levels_that_some_replicates_did_not_reach_match_nothing() -> None:
    dense = [0.9] * 5
    levels = table(dense, [0.8] * 5, [0.95] * 2)
    assert [level.state for level in levels] == ["dense", "worse", "diverged"]
    assert levels.sparsest_match is None


def test_with_one_replicate_too_no_level_matches_behind_one_that_does_not() -> None:
    levels = table([0.9], [0.8], [0.95])
    assert (levels[2].state, levels[2].behind) == ("cannot tell", 1)


def test_what_varies_too_much_cannot_be_told() -> None:
    levels = table([0.9, 0.9, 0.9, 0.9, 0.9], [0.9, 0.95, 0.85, 0.92, 0.88])
    assert levels[1].state == "cannot tell"
    assert levels.sparsest_match is None


def test_levels_are_tested_in_sequence() -> None:
    dense = [0.9] * 5
    good = [0.91, 0.92, 0.91, 0.92, 0.91]
    levels = table(dense, [0.9, 0.95, 0.85, 0.92, 0.88], good)
    assert (levels[2].state, levels[2].behind) == ("cannot tell", 1)
    assert "cannot tell: behind level 1" in str(levels)
    assert table(dense, good, good)[2].state == "matches"


@pytest.mark.parametrize(("ticket", "state"), [(0.895, "within the margin"), (0.88, "below the margin")])
def test_one_replicate_is_compared_and_shows_nothing(ticket: float, state: str) -> None:
    levels = table([0.9], [ticket])
    assert levels[1].state == state
    assert levels[1].low is None
    assert "shows nothing yet" in str(levels).replace("\n", " ")


def test_what_diverged_or_was_not_evaluated_matches_nothing() -> None:
    levels = table([0.9] * 3, [0.9] * 3)
    levels.answers.append(Answer(0, 2, "ticket", 0, 250, 1000, {}, diverged=True))
    levels.answers += [Answer(replicate, 3, "ticket", 0, 125, 1000, {}) for replicate in range(3)]
    assert [level.state for level in levels][2:] == ["diverged", "not evaluated"]
    assert not levels[2].matches
    with pytest.raises(IndexError):
        levels[4]


def test_draws_of_a_control_are_averaged() -> None:
    levels = table([0.9, 0.9], [0.9, 0.9], reinit=[0.8, 0.8])
    levels.answers.append(Answer(0, 1, "reinit", 1, 500, 1000, {"accuracy": 0.6}))
    assert levels.values("reinit", 1) == {0: pytest.approx(0.7), 1: 0.8}


def test_the_table_says_it_in_words_and_in_a_notebook() -> None:
    levels = table([0.9, 0.91, 0.92, 0.9, 0.91], [0.9, 0.91, 0.92, 0.9, 0.92], reinit=[0.8] * 5)
    text, html = str(levels), levels._repr_html_()
    for part in ("accuracy", "100.0%", "50.0%", "500", "reinit", "0.8000", "matches", "5 replicates"):
        assert part in text
        assert part in html
    assert all(len(line) <= 100 for line in text.splitlines())


def test_names_of_figures_are_escaped_in_notebooks() -> None:
    levels = PrintableLevelTable(0.01)
    levels.answers.append(Answer(0, 0, "ticket", 0, 10, 10, {"<b>": 1.0}))
    assert "<b>" not in levels._repr_html_()


def test_figures_do_not_take_the_names_of_columns() -> None:
    levels = PrintableLevelTable(0.01, answers=[Answer(0, 0, "ticket", 0, 10, 10, {"weights": 0.5})])
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
