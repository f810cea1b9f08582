"""Error barriers between tickets beside the verdict: the figure, the tables and the sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.report_data import report_data, report_row
from tests.support.reports import printed
from tests.support.ticket_lines import connected_data, connected_experiment
from tombola.report.document import Table
from tombola.report.figures.figure import Figure
from tombola.report.figures.ticket_barriers import barrier_rows, ticket_barriers_figure
from tombola.report.html import static_svg
from tombola.report.page_sections import document
from tombola.report.terminal import show_summary
from tombola.report.ticket_lines import barriers_table, connections
from tombola.stats.summarise import build_summary, summarise
from tombola.stats.ticket_barriers import judged_levels

SUMMARY = build_summary(connected_experiment())


def test_each_level_has_its_verdict_and_whether_it_is_connected() -> None:
    found = {level.level.level: (level.state, level.connected) for level in judged_levels(SUMMARY, "predecessor")}
    assert found == {
        1: ("winning", True),
        2: ("winning", False),
        3: ("not winning", True),
        4: ("not winning", False),
    }
    assert next(level.state for level in judged_levels(SUMMARY, "order")) == "dense"


def test_sentences_count_the_connected_levels_of_each_verdict() -> None:
    before, order = connections(SUMMARY)
    assert "level before" in before
    assert "1 of 2 winning, 1 of 2 not winning" in before
    assert "2 of 2 winning, 1 of 2 not winning" in order
    assert "2 points" in order


def test_the_figure_has_barriers_verdicts_and_the_tolerance_and_is_drawn() -> None:
    (drawn,) = ticket_barriers_figure(SUMMARY)
    assert isinstance(drawn, Figure)
    rows = {(row["line"], row["level"]): row for row in drawn.rows}
    assert len(rows) == len(drawn.rows) == 4 + 5
    row = rows["level before", 2]
    assert (row["weights_left"], row["verdict"], row["connected"], row["replicates"]) == (25, "winning", "no", 5)
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((20, 20, 20))
    assert {row["tolerance"] for row in drawn.rows} == {2}
    svg = static_svg(drawn)
    assert all(text in svg for text in ("level before", "other batch order", "not winning", "weights left"))


def test_the_page_shows_it_in_the_section_of_the_verdict(tmp_path: Path) -> None:
    (section,) = (section for section in document(connected_data(tmp_path)).sections if section.name == "verdict")
    assert [figure.name for figure in section.of(Figure)] == ["ticket-barriers"]
    (table,) = (table for table in section.of(Table) if table.name == "ticket-barriers-table")
    assert [row[2] for row in table.rows] == ["dense", "winning", "winning", "not winning", "not winning"]
    assert table.rows[2][3:] == ["20.00 ± 0.00", "20.00 ± 0.00", "0 of 5", "0.00 ± 0.00", "0.00 ± 0.00", "5 of 5"]
    assert {len(row) for row in table.rows} == {len(table.head)}
    assert connections(SUMMARY)[0] in section.paragraphs


def test_the_terminal_shows_it_in_80_columns() -> None:
    text = printed(show_summary, SUMMARY)
    assert "20.00 ± 0.00" in text
    assert "1 of 2 winning" in " ".join(text.split())
    assert "…" not in text
    assert "shared" not in text  # there are no candidates
    assert max(map(len, text.splitlines())) <= 80


def test_json_has_the_barriers_of_each_level() -> None:
    tickets = summarise(connected_experiment())["stability"]["tickets"]
    assert [ticket["level"] for ticket in tickets] == [0, 1, 2, 3, 4]
    assert tickets[0]["predecessor"] is None
    assert tickets[2]["predecessor"]["validation_barrier"]["mean"] == pytest.approx(0.2)
    assert (tickets[2]["predecessor"]["stable"], tickets[2]["order"]["stable"]) == (0, 5)


def test_without_lines_of_tickets_nothing_is_shown() -> None:
    summary = report_data([report_row(replicate, level) for replicate in (0, 1) for level in (0, 1)]).summary
    assert ticket_barriers_figure(summary) == barriers_table(summary) == connections(summary) == []


def test_unfinished_lines_are_left_out() -> None:
    results = connected_experiment()
    results.stability[:] = [row for row in results.stability if row["level"] != 2 or row["share"] != 0.5]
    summary = build_summary(results)
    assert summary.stability is not None
    assert {row["level"] for row in barrier_rows(summary, summary.stability)} == {0, 1, 3, 4}
