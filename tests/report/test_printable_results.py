from __future__ import annotations

import json
import pickle
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import altair as alt
import nbformat
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import vl_convert

from tests.support.custom_search import small
from tests.support.custom_search import train as train_small
from tests.support.errors import raises_input_error
from tests.support.report_data import report_data, report_row
from tests.support.reports import document_of, printed
from tombola._find_ticket import SearchResult, find_ticket
from tombola.report.figures.figure import HOVER
from tombola.report.figures.notebook_chart import VEGA_LITE, _without_hover
from tombola.report.printable_results import printable, read_results
from tombola.report.terminal import show_summary

TABLES = ("levels", "layers", "curves", "stability")
EVERY = 2


@pytest.fixture(scope="module")
def own() -> SearchResult:
    """A search with own functions that is kept in memory only."""
    return find_ticket(small, train_small, evaluate=lambda _: {"loss": 1.0}, levels=2, replicates=2, every=EVERY)


@pytest.mark.parametrize("table", TABLES)
def test_frames_have_the_rows_of_the_files(finished: Path, table: str) -> None:
    frame = read_results(finished).frame(table)
    assert isinstance(frame, pa.Table)
    path = finished / f"{table}.parquet"
    assert frame.num_rows == 0 if table == "stability" else frame.equals(pq.read_table(path))


def test_frames_of_results_in_memory(own: SearchResult) -> None:
    frames = {table: own.levels.frame(table) for table in TABLES}
    assert frames["levels"]["validation_loss_at_stop"].to_pylist() == [1.0] * 6
    assert frames["levels"]["run"].to_pylist() == [row.run for row in own.levels.rows]
    assert frames["layers"].num_rows == 6 * 2
    assert set(frames["curves"]["iteration"].to_pylist()) >= {EVERY, 2 * EVERY}
    assert frames["stability"].num_rows == 0


def test_frames_are_of_pandas_where_it_is_installed(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "pandas" not in sys.modules:
        module = ModuleType("pandas")
        module.__spec__ = ModuleSpec("pandas", None)
        monkeypatch.setitem(sys.modules, "pandas", module)
    results = replace(read_results(finished), load_table=lambda name: Convertible(name))
    assert results.frame("layers") == "layers as a data frame"


class Convertible:
    """Instead of an Arrow table."""

    def __init__(self, name: str) -> None:
        self.name = name

    def to_pandas(self) -> str:
        return f"{self.name} as a data frame"


def test_frames_and_figures_of_other_names(finished: Path) -> None:
    results = read_results(finished)
    with raises_input_error('"curve"', 'did you mean "curves"'):
        results.frame("curve")
    with raises_input_error('"acuracy"', 'did you mean "accuracy"'):
        results.plot("acuracy")


def test_curves_are_read_when_they_are_asked_for(results: Path) -> None:
    (results / "curves.parquet").write_bytes(b"damaged")
    found = read_results(results)
    assert found.rows
    with raises_input_error("curves.parquet is damaged"):
        _ = found.curves
    with raises_input_error('"validation-curves"', "no data", "curves.parquet is damaged"):
        found.plot("validation-curves")


def test_every_figure_of_the_report_is_a_chart(finished: Path) -> None:
    results = read_results(finished)
    figures = document_of(finished).figures
    assert len(figures) > 8
    for figure in figures:
        chart = results.plot(figure.name)
        assert isinstance(chart, alt.LayerChart | alt.FacetChart | alt.ConcatChart)
        drawn = chart.to_dict()
        assert drawn["datasets"]["rows"] == list(figure.rows)
        assert drawn["config"]["font"]
        assert "<svg" in vl_convert.vegalite_to_svg(drawn, allowed_base_urls=[])


def test_the_first_figures_are_one_chart(finished: Path) -> None:
    chart = read_results(finished).plot()
    assert isinstance(chart, alt.VConcatChart)
    drawn = chart.to_dict()
    first, second = drawn["vconcat"]
    assert ("accuracy" in first["title"], "Early-stopping" in second["title"]) == (True, True)
    assert [len(each["concat"]) for each in (first, second)] == [2, 2]
    names = [data_names(each) for each in (first, second)]
    assert names == [{"rows_0"}, {"rows_1"}]
    assert set(drawn["datasets"]) == {"rows_0", "rows_1"}
    views = [view for selection in drawn["params"] for view in selection["views"]]
    assert len(views) == len(set(views)) == 2
    assert len({selection["name"] for selection in drawn["params"]}) == 2
    assert "<svg" in vl_convert.vegalite_to_svg(drawn, allowed_base_urls=[])


@pytest.mark.parametrize("figure", [None, "accuracy", "densities"])
def test_notebooks_show_charts_without_a_network(finished: Path, figure: str | None) -> None:
    chart = read_results(finished).plot(figure)
    for shown in (chart, chart.properties(title="of my own")):
        bundle = shown._repr_mimebundle_()
        assert bundle.keys() == {VEGA_LITE, "image/svg+xml", "text/plain"}
        assert bundle["image/svg+xml"].startswith("<svg")
        nbformat.validate(nbformat.v4.new_output("display_data", data=bundle), ref="display_data", version=4)
    with alt.renderers.enable("json"):  # of the user's choice
        assert VEGA_LITE not in chart._repr_mimebundle_()[0]


def test_pictures_leave_out_what_only_has_tooltips(own: SearchResult) -> None:
    bundle = own.levels.plot("validation-curves")._repr_mimebundle_()
    assert HOVER in json.dumps(bundle[VEGA_LITE])
    assert HOVER not in json.dumps(_without_hover(bundle[VEGA_LITE]))
    assert 'aria-roledescription="point"' not in bundle["image/svg+xml"]


def data_names(part: Any) -> set[str]:
    """The names of all data that a chart reads."""
    if isinstance(part, list):
        return set().union(*map(data_names, part))
    if not isinstance(part, dict):
        return set()
    own = {part["data"]["name"]} if "name" in part.get("data", ()) else set()
    return own.union(*map(data_names, part.values()))


def test_figures_of_results_in_memory(own: SearchResult) -> None:
    rows = own.levels.plot("validation-curves").to_dict()["datasets"]["rows"]
    assert {row["mean"] for row in rows} == {1.0}
    with raises_input_error('"pixels" cannot be drawn'):
        own.levels.plot("pixels")


def test_representations(finished: Path, own: SearchResult) -> None:
    results = read_results(finished)
    assert len(repr(results)) < 500
    assert len(repr(own)) < 1000
    assert str(results) == "\n".join(
        line.rstrip() for line in printed(show_summary, results.summary, width=100).splitlines()
    )
    page = results._repr_html_()
    assert page.count("<tr>") == 1 + sum(len(level.branches) for level in results.levels)
    assert page.count("<b>winning") == sum(level.verdict.winning for level in results.levels)
    assert ("replicates" in page, "early stop" in page) == (True, True)
    layers = own.ticket.mask.counts
    assert all(f"{name}</td><td>{count:,}</td>" in own._repr_html_() for name, count in layers.items())
    assert own.levels._repr_html_() in own._repr_html_()


def test_names_cannot_inject_html() -> None:
    data = report_data([report_row(0, 0), report_row(0, 1), report_row(0, 1, "<b>")])
    page = printable(data.results)._repr_html_()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page


def test_results_of_a_folder_can_be_sent_to_another_process(finished: Path) -> None:
    results = read_results(finished)
    again: Any = pickle.loads(pickle.dumps(results))
    assert again == results
    assert json.dumps(again.curves) == json.dumps(results.curves)
