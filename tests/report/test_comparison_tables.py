from __future__ import annotations

from itertools import pairwise

from tests.support.recipes import tiny
from tests.support.reports import printed
from tests.support.verdict_rows import experiment_rows
from tombola.experiments.results import Results
from tombola.experiments.results_schema import Row, Tally
from tombola.report.comparison_tables import common_table, winners_table
from tombola.report.terminal import show_comparison
from tombola.stats.experiment_comparison import compare
from tombola.stats.summarise import build_summary
from tombola.stats.summary import Summary

WINNING = experiment_rows([0.95] * 5, [300] * 5)
UNDECIDED = experiment_rows([0.99, 0.91, 0.99, 0.91, 0.95], [300] * 5)
WORSE = experiment_rows([0.85] * 5, [600] * 5)


def results(rows: list[Row], name: str = "tiny") -> Results:
    return Results(tiny(name=name, replicates=5, verdict__margin=0.01, controls={}), rows, True, Tally())


def summary(rows: list[Row]) -> Summary:
    return build_summary(results(rows))


def test_undecided_experiments_are_said_to_be_undecided() -> None:
    named = {"a": summary(WINNING), "b": summary(UNDECIDED), "c": summary(WORSE)}
    _, rows = winners_table(named)
    second = {row[0]: after[1] for row, after in pairwise(rows) if row[0]}
    assert second == {"a": "ticket", "b": "cannot tell", "c": "no winning ticket"}


def test_the_only_level_is_shown_even_if_its_ticket_does_not_win() -> None:
    _, rows = winners_table({"a": summary(WORSE)})
    assert [row[1:3] for row in rows] == [["dense", "100%"], ["no winning ticket", ""], ["ticket", "25%"]]
    _, rows = winners_table({"a": summary([*WORSE, *experiment_rows([0.85] * 5, [600] * 5, level=1)[5:]])})
    assert [row[1] for row in rows] == ["dense", "no winning ticket"]


def test_common_levels_have_a_row_for_each_experiment() -> None:
    head, rows = common_table({"a": summary(WINNING), "b": summary(UNDECIDED)})
    assert (head[:3], head[-1]) == (["experiment", "level", "left"], "verdict")
    assert [row[:3] for row in rows] == [["a", "2", "25%"], ["b", "2", "25%"]]
    assert rows[0][-1].startswith("winning")
    assert rows[1][-1] == "cannot tell"
    assert common_table({"a": summary(WINNING)})[1] == []


def test_the_terminal_shows_both_tables() -> None:
    compared = compare(["a", "b"], [results(WINNING, "one"), results(UNDECIDED, "two")])
    text = printed(show_comparison, compared, width=100)
    assert "At common levels" in text
    assert text.count("cannot tell") == 2
