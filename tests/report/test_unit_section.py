"""What a search by units leaves of each layer, on the page and in the terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.recipes import tiny
from tests.support.report_data import layer_row, report_data, report_row, unit_row
from tests.support.reports import printed
from tombola.experiments.results import Results
from tombola.experiments.results_schema import Tally
from tombola.report.document import Table
from tombola.report.figures.figure import Figure
from tombola.report.page_sections import document
from tombola.report.report_data import ReportData
from tombola.report.report_tables import verdicts
from tombola.report.terminal import show_summary
from tombola.report.unit_section import unit_figures, unit_paragraphs, unit_tables
from tombola.stats.summarise import build_summary

ROWS = [report_row(r, level) for r in (0, 1) for level in (0, 1)]
LAYERS = [
    row
    for r in (0, 1)
    for level in (0, 1)
    for row in (
        unit_row(r, level, "first.weight", inputs=None, outputs=8 if level == 0 else 4 + r),
        unit_row(r, level, "output.weight", outputs=None),
    )
]


def test_layers_before_and_after_are_means_over_replicates() -> None:
    (table,) = unit_tables(report_data(ROWS, LAYERS))
    assert list(table.rows) == [
        ["first.weight", "8", "4.5", "–", "–", "50%", "640", "160"],
        ["output.weight", "–", "–", "8", "4", "50%", "640", "160"],
        ["all", "–", "–", "–", "–", "50%", "1,280", "320"],
    ]


def test_the_figure_has_the_share_of_outputs_left() -> None:
    (drawn,) = unit_figures(report_data(ROWS, LAYERS))
    assert isinstance(drawn, Figure)
    assert [(row["layer"], row["level"], row["mean"]) for row in drawn.rows] == [
        ("first.weight", 0, 100.0),
        ("first.weight", 1, 56.25),
    ]


def test_multiply_adds_are_said_and_are_in_the_tables_of_levels() -> None:
    data = report_data(ROWS, LAYERS)
    (said,) = unit_paragraphs(data)
    assert "1,280 multiply-adds" in said
    assert "320 (25%)" in said
    table = verdicts(data.summary)
    assert [row[list(table.head).index("multiply-adds left")] for row in table.rows] == ["100%", "25%"]
    results = Results(tiny(replicates=2), ROWS, True, Tally(), LAYERS)
    text = printed(show_summary, build_summary(results))
    assert "Multiply-adds left, level by level: 100%, 25%." in text
    assert [level.multiply_adds for level in build_summary(results).levels] == [1280.0, 320.0]
    assert [level.multiply_adds_left for level in build_summary(results).levels] == [1.0, 0.25]


def test_a_level_has_the_mean_number_of_weights() -> None:
    rows = [report_row(r, level) for level in (0, 1) for r in (0, 1)]
    rows[3] = replace(rows[3], weights=rows[3].weights + 3)
    level = build_summary(Results(tiny(replicates=2), rows, True, Tally())).levels[1]
    assert level.weights == round(rows[2].weights + 1.5)
    assert level.weights_left == (rows[2].weights + 1.5) / rows[2].weights_total


@pytest.mark.parametrize(
    "data",
    [
        report_data(ROWS),
        report_data(ROWS, [layer_row(r, level) for r in (0, 1) for level in (0, 1)]),
        report_data(ROWS[:1], LAYERS[:2]),
    ],
    ids=["no layers", "single weights", "dense network alone"],
)
def test_pages_of_other_searches_say_nothing_of_units(data: ReportData) -> None:
    (section,) = [each for each in document(data).sections if each.name == "layers"]
    assert len(section.paragraphs) == 1
    assert not section.of(Table)
    assert "units" not in {figure.name for figure in document(data).figures}


def test_without_known_multiply_adds_there_are_none() -> None:
    data = report_data(ROWS, [row | {"multiply_adds": None} for row in LAYERS])
    assert unit_paragraphs(data) == []
    assert unit_tables(data)[0].rows[-1][-2:] == ["–", "–"]
    assert "multiply-adds left" not in verdicts(data.summary).head
