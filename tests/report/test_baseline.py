"""What reports say of the dense network's other trainings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.baselines import WINNING, tuned_summary
from tests.support.report_data import report_data, report_row
from tests.support.reports import printed
from tombola.report.baseline_prose import NOT_TUNED, baseline_sentence
from tombola.report.baseline_section import baseline_sections
from tombola.report.document import Table
from tombola.report.figures.figure import FigureRow
from tombola.report.figures.level_figures import judged_measure, measure_rows
from tombola.report.figures.style import TUNED
from tombola.report.page_sections import document
from tombola.report.prose import conclusion
from tombola.report.terminal import show_summary
from tombola.stats.summary import Summary

BETWEEN = [accuracy - 0.007 for accuracy in WINNING]
"""Within a point of the dense network, but not of one with 95.5%."""


@pytest.mark.parametrize(
    ("summary", "facts"),
    [
        (tuned_summary([(0.94, 0.99)]), ["2 trainings", "tickets (lr = 0.005) is the best"]),
        (tuned_summary([(0.96, 0.952)]), ["lr = 0.01: 95.2%", "25% of the weights are at most 1 point less"]),
        (tuned_summary([(0.96, 0.97)]), ["the best of 2", "are less accurate", "−2 points"]),
        (tuned_summary([(0.96, 0.97)], {2: [0.9] * 5}), ["25% of the weights are less accurate", "−7 points"]),
        (tuned_summary([(0.96, 0.96), (0.97, 0.96)]), ["the best of 3", "lr = 0.02", "cannot be told", "−1 points"]),
        (tuned_summary([(0.96, 0.955)], {1: WINNING, 2: BETWEEN}), ["at 25%", "down to 50% they are at most"]),
        (tuned_summary([(0.96, 0.96)], change=lambda rows: rows[:-6]), ["2 trainings", "not known"]),
    ],
)
def test_the_conclusion_says_how_tickets_compare_with_the_best(summary: Summary, facts: list[str]) -> None:
    sentence = baseline_sentence(summary)
    assert all(fact in sentence for fact in facts), sentence
    assert conclusion(summary).endswith(f". {sentence}")


def test_without_tickets_nothing_is_compared() -> None:
    summary = tuned_summary([(0.96, 0.97)], change=lambda rows: [row for row in rows if row.level == 0])
    assert "No tickets" in baseline_sentence(summary)
    nothing = tuned_summary([(0.96, 0.97)], change=lambda rows: [])  # noqa: ARG005
    assert baseline_sentence(nothing) == ""


def test_the_first_screen_says_that_the_dense_network_was_not_tuned() -> None:
    data = report_data([report_row(r, level) for r in (0, 1) for level in (0, 1)])
    assert "not tuned" in document(data).about
    assert baseline_sections(data.summary) == []
    plain, tuned = (" ".join(printed(show_summary, tuned_summary(each)).split()) for each in ([], [(0.96, 0.97)]))
    assert NOT_TUNED in plain
    assert NOT_TUNED not in tuned
    assert "not tuned" not in document(replace(data, summary=tuned_summary([(0.96, 0.97)]))).about


def test_tables_have_every_training_and_level() -> None:
    (section,) = baseline_sections(tuned_summary([(0.96, 0.955), (0.94, 0.99)], {1: WINNING, 2: BETWEEN}))
    trainings, differences = section.of(Table)
    assert [row[0] for row in trainings.rows] == ["lr = 0.005", "lr = 0.01", "lr = 0.02"]
    assert [row[-1] for row in trainings.rows] == ["as the tickets", "the best", ""]
    assert [row[2].split()[0] for row in trainings.rows] == ["95.00", "95.50", "99.00"]
    assert [row[0] for row in differences.rows] == ["1", "2"]
    assert [row[2] for row in differences.rows] == ["yes", "cannot tell"]
    assert all(len(row) == len(table.head) for table in (trainings, differences) for row in table.rows)


def test_the_terminal_shows_every_training() -> None:
    text = printed(show_summary, tuned_summary([(0.96, 0.955), (0.94, 0.99)]))
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "as the tickets" in lines["lr = 0.005"]
    assert "the best" in lines["lr = 0.01"]
    assert "99.00" in lines["lr = 0.02"]


def test_figures_have_a_line_for_the_best_training_if_it_is_another() -> None:
    def rows_of(summary: Summary) -> list[FigureRow]:
        return [row for row in measure_rows(summary, judged_measure(summary)) if row["branch"] == TUNED]

    rows = rows_of(tuned_summary([(0.96, 0.955)]))
    assert [row["weights_left"] for row in rows] == [100.0]
    assert [row["mean"] for row in rows] == pytest.approx([95.5])
    assert rows_of(tuned_summary([(0.94, 0.99)])) == []
