"""The figures: the numbers in them, and that every one of them can be drawn."""

from __future__ import annotations

import math
from dataclasses import replace
from xml.etree import ElementTree

import altair as alt
import pytest

from tests.support.report_data import curve_points, layer_row, report_data, report_row
from tests.support.reports import HOSTILE
from tombola.experiments.layer_stats import BINS
from tombola.report.figures.axes import logarithmic, logarithmic_view, spaced_ticks, vertical_scale, view
from tombola.report.figures.figure import Figure, FigureRow, MissingFigure, figure
from tombola.report.figures.layer_figures import densities, distances, sign_changes
from tombola.report.figures.level_figures import STOP, cost_rows, judged_measure, level_figure, measure_rows
from tombola.report.figures.style import BRANCHES, ramp
from tombola.report.figures.training_curves import MAX_POINTS, curve_rows, evenly_spaced, training_curves
from tombola.report.figures.weight_figures import (
    histograms,
    initial_weights,
    pixel_maps,
    pixels,
    representative_levels,
)
from tombola.report.html import static_svg
from tombola.report.page_sections import document
from tombola.stats.summary import Summary

SVG = "{http://www.w3.org/2000/svg}"


UNTESTED = {"verdict": None, "difference": None, "difference_low": None, "difference_high": None, "margin": None}


def test_levels_have_a_row_for_each_branch_and_one_for_dense() -> None:
    small = report_data([report_row(r, level) for r in (0, 1) for level in (0, 1)] + [report_row(0, 1, "reinit")])
    *others, ticket = measure_rows(small.summary, STOP)
    two = {"low": 100, "high": 101, "replicates": 2}  # the lowest and the highest value
    dense = {"level": 0, "weights_left": 100.0, "mean": 100.5} | two | UNTESTED
    assert others == [
        {"branch": "dense"} | dense,
        {"branch": "reinit", "level": 1, "weights_left": 50.0, "mean": 110.0}
        | {"low": None, "high": None, "replicates": 1}
        | UNTESTED,
        {"branch": "ticket"} | dense,
    ]
    assert (ticket["mean"], ticket["low"], ticket["high"], ticket["verdict"]) == (110.5, 110, 111, "cannot tell")
    assert ticket["difference"] == pytest.approx(100 * (110.5 / 100.5 - 1))
    five = measure_rows(report_data([report_row(r, 0) for r in range(5)]).summary, STOP)[0]
    half = 2.776445 * 2.5**0.5 / 5**0.5  # Student's t at 0.975 with four degrees of freedom
    assert (five["low"], five["high"]) == (pytest.approx(102 - half), pytest.approx(102 + half))


def accuracy_rows(summary: Summary) -> list[FigureRow]:
    return measure_rows(summary, judged_measure(summary))


def test_intervals_are_clipped_to_possible_values() -> None:
    rows = accuracy_rows(report_data([report_row(r, 0) for r in (0, 96, 97, 98, 99)]).summary)
    assert rows[0]["mean"] == pytest.approx(97.8)
    assert rows[0]["high"] == 100.0
    assert 90 < float(rows[0]["low"] or 0) < 96


def drawn_row(branch: str, level: int, mean: float, half: float = 0.0, verdict: str | None = None) -> FigureRow:
    bounds: FigureRow = {"low": mean - half, "high": mean + half}
    return {"branch": branch, "level": level, "mean": mean, "verdict": verdict} | bounds


def test_wide_bands_are_clipped() -> None:
    rows = [drawn_row("dense", 0, 95.0), drawn_row("ticket", 0, 95.0, 80.0), drawn_row("ticket", 1, 90.0, 1.0)]
    assert view(rows, 1.0, None, ["ticket"]) == (85.0, 100.0)
    assert view(rows[:1], 1.0, None, []) is None
    assert "domain" not in vertical_scale(None).to_dict()


def test_collapsed_tickets_and_far_controls_leave_the_figure_and_winners_do_not() -> None:
    near = [drawn_row("dense", 0, 95.0), drawn_row("ticket", 1, 94.0), drawn_row("ticket", 2, 92.0)]
    far = [drawn_row("ticket", 3, 11.0), drawn_row("reinit", 3, 10.0), drawn_row("random", 3, 9.0)]
    assert view(near + far, 1.0, 94.0, ["ticket", "reinit"]) == (89.0, 95.0)
    assert view(near + far, math.inf, None, ["ticket"]) == (11.0, 95.0)
    better = drawn_row("ticket", 3, 130.0, verdict="winning")
    assert view([*near, better], 1.0, 94.0, ["ticket"]) == (92.0, 130.0)


def test_diverged_runs_are_left_out() -> None:
    rows = accuracy_rows(report_data([report_row(0, 0), report_row(0, 1, failed=True)]).summary)
    assert [(r["branch"], r["level"]) for r in rows] == [("dense", 0), ("ticket", 0)]
    failed = report_data([report_row(0, 0, failed=True)]).summary
    assert isinstance(level_figure(failed, judged_measure(failed), "A caption."), MissingFigure)


def test_curves_are_means_over_replicates_with_a_limited_number_of_points() -> None:
    rows = [report_row(r, level) for r in (0, 1) for level in (0, 1)]
    few = report_data(
        rows,
        curves=[*curve_points(0, 1, [10, 20]), *curve_points(1, 1, [10, 20]), *curve_points(0, 1, [10], "reinit")],
    )
    assert curve_rows(few, "validation_accuracy", 100) == [
        {"level": 1, "weights_left": 50.0, "iteration": iteration}
        | {"mean": pytest.approx(mean), "low": pytest.approx(mean - 5), "high": pytest.approx(mean + 5)}
        for iteration, mean in ((10, 6.0), (20, 7.0))
    ]
    many = curve_rows(report_data(rows, curves=curve_points(0, 0, range(1, 5001))), "train_loss", 1)
    iterations = [r["iteration"] for r in many]
    assert len(many) == MAX_POINTS
    assert (iterations[0], iterations[-1]) == (1, 5000)


def test_layers() -> None:
    found = report_data(
        [report_row(r, level) for r in (0, 1) for level in (0, 1)],
        [layer_row(r, level) for r in (0, 1) for level in (0, 1)],
    )
    places = [{"layer": "fc.weight", "level": level, "weights_left": 100.0 / 2**level} for level in (0, 1)]
    for make, values in ((densities, (100.0, 50.0)), (sign_changes, (25.0, 25.0)), (distances, (1.5, 1.5))):
        drawn = make(found)
        assert isinstance(drawn, Figure)
        assert drawn.rows == [place | {"mean": value} for place, value in zip(places, values, strict=True)]


def test_layers_that_diverged_or_collapsed_have_no_point() -> None:
    broken = layer_row(0, 1) | {"weights": 0, "sign_changes": None, "distance": None}
    found = report_data([report_row(0, 0), report_row(0, 1)], [layer_row(0, 0), broken])
    for make in (densities, sign_changes, distances):
        drawn = make(found)
        assert isinstance(drawn, Figure)
        assert [r["level"] for r in drawn.rows] == [0]


def test_histograms_have_area_one() -> None:
    found = report_data([report_row(r, 0) for r in (0, 1)], [layer_row(r, 0) for r in (0, 1)])
    rows = histograms(found, [0])
    assert len(rows) == BINS
    assert rows[BINS // 2] == {
        "layer": "fc.weight",
        "level": 0,
        "weights_left": 100.0,
        "value": 0.0625,
        "density": 8.0,  # all weights in one bin of width 1/8
        "weights": 128,
    }
    assert sum(float(r["density"] or 0) for r in rows) == 8.0


def test_pixels_are_relative_to_their_mean() -> None:
    found = report_data([report_row(r, 1) for r in (0, 1)], [layer_row(r, 1) for r in (0, 1)])
    place = {"level": 1, "weights_left": 50.0}
    assert pixel_maps(found, [1], (2, 2)) == [
        place | {"row": 0, "column": 0, "connections": 8.5, "relative": 8.5 / 4.125},
        place | {"row": 0, "column": 1, "connections": 0.0, "relative": 0.0},
        place | {"row": 1, "column": 0, "connections": 0.0, "relative": 0.0},
        place | {"row": 1, "column": 1, "connections": 8.0, "relative": 8.0 / 4.125},
    ]


def test_large_maps_are_coarsened() -> None:
    large = layer_row(0, 1) | {"input_connections": [1] * 100 * 70}
    rows = pixel_maps(report_data([report_row(0, 1)], [large]), [1], (100, 70))
    assert len(rows) == 25 * 17
    assert {r["relative"] for r in rows} == {1.0}


@pytest.mark.parametrize("inputs", [(), (4,)])
def test_inputs_that_are_not_images_have_no_map(inputs: tuple[int, ...]) -> None:
    assert isinstance(pixels(report_data([report_row(0, 1)], [layer_row(0, 1)], inputs=inputs)), MissingFigure)


def test_costs_are_seconds_per_run() -> None:
    rows = cost_rows(report_data([report_row(0, 0), report_row(0, 1)]))
    assert [(r["level"], r["weights_left"], r["mean"], r["replicates"]) for r in rows] == [
        (0, 100.0, 1.5, 2),
        (1, 50.0, 0.75, 2),
    ]


def test_representative_levels() -> None:
    levels = report_data([report_row(r, level) for r in (0, 1) for level in range(8)])
    assert representative_levels(levels) == [1, 4, 7]
    winning = levels.summary.model_copy(update={"smallest_winning": levels.summary.levels[5]})
    assert representative_levels(replace(levels, summary=winning)) == [1, 4, 5, 7]
    assert representative_levels(report_data([report_row(0, 0)])) == []


def test_ramps() -> None:
    assert ramp(1) == ["#4b5bb5"]
    assert (ramp(9)[0], ramp(9)[-1], len(set(ramp(9)))) == ("#4b5bb5", "#d9a520", 9)


def test_axes() -> None:
    assert spaced_ticks([100.0, 90.0, 50.0, 49.0, 10.0], 1.5) == [100.0, 50.0, 10.0]
    assert spaced_ticks([100.0, 80.0, 60.0, 50.0], 1.5) == [100.0, 50.0]
    assert (spaced_ticks([100.0, 99.0], 1.5), spaced_ticks([], 2)) == ([100.0, 99.0], [])
    assert logarithmic([2.0, 100.0])[1].to_dict()["values"] == [2, 5, 10, 20, 50, 100]
    assert logarithmic([0.001, 100.0])[1].to_dict()["values"] == pytest.approx([0.001, 0.01, 0.1, 1, 10, 100])
    assert logarithmic([5.0])[0].to_dict()["domain"] == [2.5, 10.0]


def test_numbers_that_are_not_finite_are_null() -> None:
    chart = alt.Chart(alt.NamedData("rows")).mark_point()
    drawn = figure("name", "Title", "", chart, [{"a": float("nan"), "b": float("inf"), "c": 1 / 3, "d": "x"}])
    assert isinstance(drawn, Figure)
    assert drawn.rows == [{"a": None, "b": None, "c": 0.333333, "d": "x"}]


def test_many_branches_and_levels_can_be_drawn() -> None:
    branches = ["ticket", *list(BRANCHES)[2:8], HOSTILE]
    levels = range(23)
    names = ["conv1.weight", HOSTILE, *(f"layer{i}.weight" for i in range(10))]
    many = report_data(
        [report_row(r, level, b) for r in range(3) for level in levels for b in branches if level or b == "ticket"],
        [layer_row(r, level, name) for r in range(2) for level in levels for name in names],
        [point for level in levels for point in curve_points(0, level, range(10, 2000, 10))],
        replicates=3,
    )
    drawn = document(many).figures
    expected = {"accuracy", "stop", "validation-curves", "densities", "initial-weights", "pixels"}
    assert {f.name for f in drawn} >= expected
    for one in drawn:
        picture = static_svg(one)
        root = ElementTree.fromstring(picture)  # hostile names are escaped
        assert root.tag == f"{SVG}svg"
        assert not root.findall(f".//{SVG}script")
        assert len(list(root.iter(f"{SVG}path"))) > 2, one.name


def test_one_level_can_be_drawn() -> None:
    one = report_data([report_row(0, 0)], [layer_row(0, 0)], curve_points(0, 0, [10, 20]), replicates=1)
    accuracy = level_figure(one.summary, judged_measure(one.summary), "A caption.")
    for drawn in (*training_curves(one)[:1], initial_weights(one), densities(one), accuracy):
        assert isinstance(drawn, Figure)
        assert ElementTree.fromstring(static_svg(drawn)).tag == f"{SVG}svg"


def test_an_axis_is_logarithmic_where_means_differ_widely() -> None:
    assert logarithmic_view([100.0, 900.0]) == (50.0, 1350.0)
    assert logarithmic_view([100.0, 400.0]) is logarithmic_view([0.0, 400.0]) is None


def test_evenly_spaced_values() -> None:
    assert evenly_spaced(range(22), 8) == [0, 3, 6, 9, 12, 15, 18, 21]
    assert evenly_spaced([5, 6], 8) == [5, 6]
    assert evenly_spaced([], 8) == []
