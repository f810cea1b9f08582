"""What reports say of sparse double descent."""

from __future__ import annotations

import pytest

from tests.stats.test_double_descent import ERRORS, results
from tests.support.reports import printed
from tombola.experiments.results import Results
from tombola.report.document import Table
from tombola.report.double_descent_section import double_descent_sections
from tombola.report.figures.double_descent_figure import curve_rows
from tombola.report.figures.figure import Figure
from tombola.report.html import static_svg
from tombola.report.terminal import show_summary
from tombola.stats.summarise import build_summary


def shown(given: Results) -> str:
    return " ".join(printed(show_summary, build_summary(given)).split())


@pytest.mark.parametrize("facts", [["rises by", "from 100% to", "rises again by"], ["distance travelled has a bump"]])
def test_the_terminal_says_where_the_bump_is(facts: list[str]) -> None:
    text = shown(results(data__label_noise=0.4))
    assert all(fact in text for fact in facts), text


def test_the_terminal_says_if_nothing_is_seen_or_can_be_told() -> None:
    flat = results(analysis__double_descent=True)
    flat.rows[:] = [flat.rows[0].from_dict(row.to_dict() | {"test_accuracy": 0.9}) for row in flat.rows]
    assert "is not seen" in shown(flat)
    assert "cannot be tested with 5 replicates" in shown(results(5, analysis__double_descent=True))
    assert "double descent" not in shown(results()).lower()


def test_the_page_has_a_figure_and_a_table() -> None:
    (section,) = double_descent_sections(build_summary(results(data__label_noise=0.4)))
    (table,), (figure,) = section.of(Table), section.of(Figure)
    assert len(table.rows) == len(ERRORS)
    assert figure.panels == 2
    assert "<svg" in static_svg(figure)
    assert double_descent_sections(build_summary(results())) == []


def test_the_figure_marks_the_peak_and_has_no_negative_errors() -> None:
    found = build_summary(results(data__label_noise=0.4)).double_descent
    assert found is not None
    rows = curve_rows(found, 0.95)
    assert {row["level"] for row in rows if row["peak"]} == {2}
    assert len(rows) == 4 * len(ERRORS)
    assert all(float(row["low"] or 0) >= 0 for row in rows)


def test_without_distances_there_is_one_panel() -> None:
    given = results(data__label_noise=0.4)
    given.layers.clear()
    (section,) = double_descent_sections(build_summary(given))
    (figure,) = section.of(Figure)
    assert {row["curve"] for row in figure.rows} == {
        "test, end of training",
        "test, early stop",
        "training, end of training",
    }
