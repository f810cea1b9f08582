"""The figures: the numbers in them, and that every one of them can be drawn."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tests.report.helpers import HOSTILE, curve, layer, material, row
from tombola.experiments.layer_stats import BINS
from tombola.report.figures.cost import costs
from tombola.report.figures.curves import MOST_POINTS, curves, thinned, validation_curves
from tombola.report.figures.figure import Absent, Figure, Numbers, figure
from tombola.report.figures.layer_figures import densities, distances, sign_changes
from tombola.report.figures.level_figures import ACCURACY, STOP, apart, by_level, level_figure, logarithmic, vertical
from tombola.report.figures.style import BRANCHES, colours, ordered, ramp
from tombola.report.figures.weights import histograms, initial_weights, pixel_maps, pixels, telling
from tombola.report.html import still
from tombola.report.page_sections import document

SVG = "{http://www.w3.org/2000/svg}"


def test_levels_have_a_line_for_each_branch_and_two_for_dense() -> None:
    small = material([row(r, level) for r in (0, 1) for level in (0, 1)] + [row(0, 1, "reinit")])
    rows = [
        {k: round(v, 6) if isinstance(v, float) else v for k, v in r.items()} for r in by_level(small.summary, STOP)
    ]
    half = 6.353102  # Student's t at 0.975 with one degree of freedom, times 0.7071 / sqrt(2)
    dense = {"level": 0, "mean": 100.5, "low": 100.5 - half, "high": 100.5 + half, "replicates": 2}
    assert rows == [
        {"branch": "dense", "weights_left": 100.0} | dense,
        {"branch": "dense", "weights_left": 50.0} | dense,
        {"branch": "reinit", "level": 1, "weights_left": 50.0}
        | {"mean": 110.0, "low": None, "high": None, "replicates": 1},
        {"branch": "ticket", "weights_left": 100.0} | dense,
        {"branch": "ticket", "level": 1, "weights_left": 50.0}
        | {"mean": 110.5, "low": 110.5 - half, "high": 110.5 + half, "replicates": 2},
    ]


def test_intervals_end_where_nothing_can_be() -> None:
    rows = by_level(material([row(0, 0), row(9, 0)]).summary, ACCURACY)  # two replicates: Student's t is far out
    half = pytest.approx(90.45 - 5.7178, abs=1e-3), pytest.approx(90.45 + 5.7178, abs=1e-3)
    assert (rows[0]["low"], rows[0]["high"]) == half
    rows = by_level(material([row(0, 0), row(99, 0)]).summary, ACCURACY)
    assert (rows[0]["low"], rows[0]["high"]) == (pytest.approx(94.95 - 62.8957, abs=1e-3), 100.0)


def test_wide_bands_leave_the_means_room() -> None:
    rows: list[Numbers] = [{"mean": 95.0, "low": 20.0, "high": 100.0}, {"mean": 90.0, "low": 89.0, "high": 91.0}]
    assert vertical(rows).to_dict()["domain"] == [85.0, 100.0]
    assert "domain" not in vertical(rows[:1]).to_dict()
    assert vertical(rows, zero=True).to_dict() == {"zero": True}


def test_what_diverged_is_left_out() -> None:
    rows = by_level(material([row(0, 0), row(0, 1, diverged=True)]).summary, ACCURACY)
    assert [(r["branch"], r["level"]) for r in rows] == [("dense", 0), ("dense", 0), ("ticket", 0)]
    assert isinstance(level_figure(material([row(0, 0, diverged=True)]).summary, ACCURACY), Absent)


def test_curves_are_means_over_replicates_and_thinned() -> None:
    rows = [row(r, level) for r in (0, 1) for level in (0, 1)]
    few = material(rows, curves=[*curve(0, 1, [10, 20]), *curve(1, 1, [10, 20]), *curve(0, 1, [10], "reinit")])
    assert curves(few, "validation_accuracy", 100) == [
        {"level": 1, "weights_left": 50.0, "iteration": 10, "mean": pytest.approx(6.0)},
        {"level": 1, "weights_left": 50.0, "iteration": 20, "mean": pytest.approx(7.0)},
    ]
    many = curves(material(rows, curves=curve(0, 0, range(1, 5001))), "train_loss", 1)
    iterations = [r["iteration"] for r in many]
    assert len(many) == MOST_POINTS
    assert (iterations[0], iterations[-1]) == (1, 5000)


def test_layers() -> None:
    found = material(
        [row(r, level) for r in (0, 1) for level in (0, 1)], [layer(r, level) for r in (0, 1) for level in (0, 1)]
    )
    expected = [{"layer": "fc.weight", "level": 0, "weights_left": 100.0}, {"layer": "fc.weight", "level": 1}]
    expected[1]["weights_left"] = 50.0
    for make, values in ((densities, (100.0, 50.0)), (sign_changes, (25.0, 25.0)), (distances, (1.5, 1.5))):
        drawn = make(found)
        assert isinstance(drawn, Figure)
        assert drawn.rows == [place | {"mean": value} for place, value in zip(expected, values, strict=True)]


def test_layers_that_diverged_or_collapsed_have_no_point() -> None:
    broken = layer(0, 1) | {"weights": 0, "sign_changes": None, "distance": None}
    found = material([row(0, 0), row(0, 1)], [layer(0, 0), broken])
    for make in (densities, sign_changes, distances):
        drawn = make(found)
        assert isinstance(drawn, Figure)
        assert [r["level"] for r in drawn.rows] == [0]


def test_histograms_have_area_one() -> None:
    found = material([row(r, 0) for r in (0, 1)], [layer(r, 0) for r in (0, 1)])
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
    found = material([row(r, 1) for r in (0, 1)], [layer(r, 1) for r in (0, 1)])
    place = {"level": 1, "weights_left": 50.0}
    assert pixel_maps(found, [1], (2, 2)) == [
        place | {"row": 0, "column": 0, "connections": 8.5, "relative": 8.5 / 4.125},
        place | {"row": 0, "column": 1, "connections": 0.0, "relative": 0.0},
        place | {"row": 1, "column": 0, "connections": 0.0, "relative": 0.0},
        place | {"row": 1, "column": 1, "connections": 8.0, "relative": 8.0 / 4.125},
    ]


def test_large_maps_are_coarsened() -> None:
    large = layer(0, 1) | {"input_connections": [1] * 100 * 70}
    rows = pixel_maps(material([row(0, 1)], [large]), [1], (100, 70))
    assert len(rows) == 25 * 17
    assert {r["relative"] for r in rows} == {1.0}


@pytest.mark.parametrize("inputs", [(), (4,)])
def test_no_map_of_what_is_no_image(inputs: tuple[int, ...]) -> None:
    assert isinstance(pixels(material([row(0, 1)], [layer(0, 1)], inputs=inputs)), Absent)


def test_costs_are_seconds_per_run() -> None:
    rows = costs(material([row(0, 0), row(0, 1)]))
    assert [(r["level"], r["weights_left"], r["mean"], r["replicates"]) for r in rows] == [
        (0, 100.0, 1.5, 2),
        (1, 50.0, 0.75, 2),
    ]


def test_telling_levels() -> None:
    levels = material([row(r, level) for r in (0, 1) for level in range(8)])
    assert telling(levels) == [1, 4, 7]
    levels.summary["smallest_winning"] = {"level": 5}
    assert telling(levels) == [1, 4, 5, 7]
    assert telling(material([row(0, 0)])) == []


def test_branches_keep_their_colours() -> None:
    branches = ordered(["zebra", "reinit", "dense", "ticket", "ant"])
    assert branches == ["ticket", "dense", "reinit", "ant", "zebra"]
    assert colours(branches)[:3] == [BRANCHES[b] for b in branches[:3]]
    assert len(set(colours(branches))) == 5
    assert len(set(BRANCHES.values())) == len(BRANCHES)
    assert ramp(1) == ["#4b5bb5"]
    assert (ramp(9)[0], ramp(9)[-1], len(set(ramp(9)))) == ("#4b5bb5", "#d9a520", 9)


def test_axes() -> None:
    assert apart([100.0, 90.0, 50.0, 49.0, 10.0], 1.5) == [100.0, 50.0, 10.0]
    assert apart([100.0, 80.0, 60.0, 50.0], 1.5) == [100.0, 50.0]
    assert (apart([100.0, 99.0], 1.5), apart([], 2)) == ([100.0, 99.0], [])
    assert logarithmic([2.0, 100.0])[1].to_dict()["values"] == [2, 5, 10, 20, 50, 100]
    assert logarithmic([0.001, 100.0])[1].to_dict()["values"] == pytest.approx([0.001, 0.01, 0.1, 1, 10, 100])
    assert logarithmic([5.0])[0].to_dict()["domain"] == [2.5, 10.0]


def test_not_a_number_is_nothing() -> None:
    drawn = figure("name", "Title", "", level_chart(), [{"a": float("nan"), "b": float("inf"), "c": 1 / 3, "d": "x"}])
    assert isinstance(drawn, Figure)
    assert drawn.rows == [{"a": None, "b": None, "c": 0.333333, "d": "x"}]


def level_chart() -> object:
    import altair as alt

    return alt.Chart(alt.NamedData("rows")).mark_point()


def test_many_branches_and_levels_can_be_drawn() -> None:
    branches = ["ticket", *list(BRANCHES)[2:8], HOSTILE]
    levels = range(23)
    names = ["conv1.weight", HOSTILE, *(f"layer{i}.weight" for i in range(10))]
    many = material(
        [row(r, level, b) for r in range(3) for level in levels for b in branches if level or b == "ticket"],
        [layer(r, level, name) for r in range(2) for level in levels for name in names],
        [point for level in levels for point in curve(0, level, range(10, 2000, 10))],
        replicates=3,
    )
    drawn = document(many).figures
    assert {f.name for f in drawn} >= {
        "accuracy",
        "stop",
        "validation-curves",
        "densities",
        "initial-weights",
        "pixels",
    }
    for one in drawn:
        picture = still(one)
        root = ElementTree.fromstring(picture)  # text of ours that it holds is text
        assert root.tag == f"{SVG}svg"
        assert not root.findall(f".//{SVG}script")
        assert len(list(root.iter(f"{SVG}path"))) > 2, one.name


def test_one_level_can_be_drawn() -> None:
    one = material([row(0, 0)], [layer(0, 0)], curve(0, 0, [10, 20]), replicates=1)
    for drawn in (validation_curves(one), initial_weights(one), densities(one), level_figure(one.summary, ACCURACY)):
        assert isinstance(drawn, Figure)
        assert ElementTree.fromstring(still(drawn)).tag == f"{SVG}svg"


def test_an_axis_is_logarithmic_where_means_differ_widely() -> None:
    rows: list[Numbers] = [{"branch": "ticket", "mean": mean, "low": None, "high": None} for mean in (100.0, 900.0)]
    assert vertical(rows, wide=True).to_dict()["type"] == "log"
    assert "type" not in vertical(rows).to_dict()
    assert "type" not in vertical([{**row, "mean": 100.0} for row in rows], wide=True).to_dict()


def test_at_most_so_many_are_shown_evenly() -> None:
    assert thinned(range(22), 8) == [0, 3, 6, 9, 12, 15, 18, 21]
    assert thinned([5, 6], 8) == [5, 6]
    assert thinned([], 8) == []
