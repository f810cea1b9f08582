"""Figure 1: the dense network with its margin, points by verdict, and beside it what was tested."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.report_data import report_data
from tests.support.reports import figure_names
from tests.support.verdict_rows import verdict_row
from tombola.experiments.margin import Margin
from tombola.report.comparison_page import comparison
from tombola.report.figures.figure import Figure
from tombola.report.figures.level_chart import MAX_BANDS, bands_that_matter, series_of
from tombola.report.figures.level_figures import GAP, STOP, judged_measure, level_figure
from tombola.report.figures.style import VERDICTS
from tombola.report.page_sections import document
from tombola.report.report_data import ReportData
from tombola.stats.summarise import build_summary
from tombola.stats.ticket_barriers import verdict_state

REPLICATES = 8
LEVELS = {0: 0.95, 1: 0.952, 2: 0.951, 3: 0.949, 4: 0.9405, 5: 0.80, 6: 0.10}
"""The mean accuracy of each level: level 1 has too many weights, 4 is near the margin, 6 has collapsed."""


def judged_data(levels: dict[int, float] = LEVELS, replicates: int = REPLICATES) -> ReportData:
    """Early stops are sooner; a control is worse."""
    rows = [
        verdict_row(r, level, mean + 0.004 * ((r % 4) - 1.5) * (1 + level) / 4, 500 - 20 * level + r)
        for level, mean in levels.items()
        for r in range(replicates)
    ]
    rows += [
        verdict_row(r, level, mean - 0.03, 900, branch="reinit")
        for level, mean in levels.items()
        if level
        for r in range(replicates)
    ]
    return with_criteria(report_data(rows, replicates=replicates), margin=Margin(0.01), max_density=0.4)


def with_criteria(data: ReportData, **criteria: Any) -> ReportData:
    """The same results, judged by other criteria."""
    config = data.results.config
    changed = config.model_copy(update={"verdict": config.verdict.model_copy(update=criteria)})
    results = replace(data.results, config=changed)
    return replace(data, results=results, summary=build_summary(results))


DATA = judged_data()


def first_figure(data: ReportData = DATA) -> Figure:
    found = document(data).figures[0]
    assert found.name == "accuracy"
    return found


def layers(chart: Any, mark: str) -> list[dict[str, Any]]:
    return [layer for layer in chart["layer"] if layer["mark"]["type"] == mark]


def test_points_are_filled_hollow_or_crosses_by_verdict() -> None:
    figure = first_figure()
    states = {level.level: verdict_state(level) for level in DATA.summary.levels if level.level}
    assert set(states.values()) == {"too many weights", "winning", "cannot tell", "not winning"}
    rows = {row["level"]: row for row in figure.rows if row["branch"] == "ticket"}
    assert {level: row["verdict"] for level, row in rows.items() if level} == states
    for panel in figure.chart["concat"]:
        disc, points = layers(panel, "point")
        scale = points["encoding"]["shape"]["scale"]
        shapes = dict(zip(scale["domain"], scale["range"], strict=True))
        assert {series_of(row) for row in rows.values()} <= set(shapes)
        assert {verdict: shapes[f"ticket, {verdict}"] for verdict in VERDICTS} == VERDICTS
        assert disc["mark"]["style"] == "paper"
        assert {"filter": "datum.series == 'ticket, cannot tell'"} in disc["transform"]
    assert VERDICTS["cannot tell"].count("Z") == 2  # a ring
    assert len(set(VERDICTS.values())) == 4


def test_bounds_are_those_of_the_test_and_agree_with_the_verdict() -> None:
    for figure, which in zip(document(DATA).figures[:2], ("metric_test", "stop_test"), strict=True):
        rows = {row["level"]: row for row in figure.rows if row["branch"] == "ticket" and row["level"]}
        assert len(rows) == len(LEVELS) - 1
        for level in DATA.summary.levels[1:]:
            test = getattr(level.verdict, which)
            row = rows[level.level]
            tested = (row["difference"], row["difference_low"], row["difference_high"], row["margin"])
            assert tested == pytest.approx([100 * v for v in (test.mean, test.low, test.high, test.limit)], rel=1e-5)
            alpha = 1 - DATA.summary.criteria.confidence
            difference = level.verdict.difference if which == "metric_test" else level.verdict.stop_difference
            assert difference is not None
            assert test.holds == (difference.p_not_worse <= alpha)
            if level.verdict.winning:
                assert test.holds


def test_the_dense_network_is_a_line_and_its_margin_is_shaded_in_both_panels() -> None:
    means, differences = first_figure().chart["concat"]
    (band,) = layers(means, "rect")
    assert band["encoding"]["y"]["field"] == "mean"
    assert band["encoding"]["y2"]["datum"] == pytest.approx(94.0)
    (shaded,) = layers(differences, "rect")
    assert (shaded["encoding"]["y"]["datum"], shaded["encoding"]["y2"]["datum"]) == (0, pytest.approx(-1.0))
    assert [rule["encoding"]["y"].get("datum") for rule in layers(differences, "rule")][:2] == [
        0,
        pytest.approx(-1.0),
    ]
    assert sum(row["branch"] == "dense" for row in first_figure().rows) == 1


def test_ticks_are_the_densities_of_the_levels_with_three_digits() -> None:
    left = [100 * level.weights_left for level in DATA.summary.levels]
    for panel in first_figure().chart["concat"]:
        axis = next(
            layer["encoding"]["x"]["axis"] for layer in panel["layer"] if "axis" in layer["encoding"].get("x", ())
        )
        assert sorted(axis["values"]) == sorted(left)
        assert axis["format"] == ".3~r"
        assert axis["labelOverlap"] == "greedy"


def test_the_smallest_winning_level_is_labelled() -> None:
    winner = DATA.summary.smallest_winning
    assert winner is not None
    texts = layers(first_figure().chart["concat"][0], "text")
    assert [f"datum.level == {winner.level}" in str(text["transform"]) for text in texts] == [True, False]


def domain_of(chart: Any) -> list[float]:
    return next(
        found["domain"]
        for layer in chart["layer"]
        if layer["mark"]["type"] == "line" and (found := layer["encoding"]["y"]["scale"])
    )


def test_collapsed_levels_do_not_flatten_the_report_or_the_comparison() -> None:
    low, high = domain_of(first_figure().chart["concat"][0])
    assert 85 < low < 94 < 95.2 < high < 100
    page = comparison([DATA, judged_data({level: mean - 0.01 for level, mean in LEVELS.items()})])
    (lower, _) = domain_of(page.figures[0].chart)
    assert 84 < lower <= low
    alone = comparison([DATA])
    assert domain_of(alone.figures[0].chart) == [low, high]


def test_only_bands_that_matter_are_drawn() -> None:
    assert bands_that_matter(["reinit"]) == ["ticket", "reinit"]
    assert bands_that_matter(["reinit"], 2) == ["ticket", "reinit"]
    assert bands_that_matter(["reinit", "random"], 2) == ["ticket"]
    assert bands_that_matter(["reinit"], MAX_BANDS) == ["ticket"]
    assert bands_that_matter(["reinit"], MAX_BANDS + 1) == []
    many = comparison([DATA] * (MAX_BANDS + 1)).figures[0]
    assert not layers(many.chart, "area")
    (band,) = layers(comparison([DATA, DATA]).figures[0].chart, "area")
    assert "reinit" in str(band["transform"])


def test_a_relative_margin_is_drawn_in_percent_of_the_dense_network() -> None:
    figure = first_figure(with_criteria(DATA, margin=Margin(0.02, relative=True)))
    (row,) = (row for row in figure.rows if row["branch"] == "ticket" and row["level"] == 2)
    assert row["margin"] == pytest.approx(-2)
    assert row["difference"] == pytest.approx(100 * 0.001 / 0.95, abs=1e-3)
    assert "(% of dense)" in str(figure.chart)


def test_without_a_test_there_is_one_panel() -> None:
    one = judged_data(replicates=1)
    figure = level_figure(one.summary, judged_measure(one.summary), "A caption.")
    assert isinstance(figure, Figure)
    assert "layer" in figure.chart
    assert not figure.wide
    assert "difference" not in figure.columns
    gap = level_figure(DATA.summary, GAP, "A caption.")
    assert isinstance(gap, Figure)
    assert "layer" in gap.chart


def test_figures_are_numbered_and_have_captions() -> None:
    page = document(DATA)
    assert [page.number(figure) for figure in page.figures] == [*range(1, 1 + len(page.figures))]
    assert page.file_name(page.figures[1]) == f"figure-2-{STOP.name}"
    assert len(figure_names(page)) == len(page.figures)
    for each in (*page.figures, *comparison([DATA, DATA]).figures):
        assert each.caption.endswith("."), each.name
