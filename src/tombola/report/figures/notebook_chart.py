"""Figures of the report as Altair charts, with their data and the theme."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from tombola.report.figures.chart import DATA
from tombola.report.figures.figure import HOVER, Figure
from tombola.report.figures.style import theme
from tombola.report.vega import svg

WIDTH = 380
"""The width of a chart, or of a panel, in pixels."""

VEGA_LITE, SCHEMA = "application/vnd.vegalite.v5+json", "https://vega.github.io/schema/vega-lite/v5.json"
"""A version that all of JupyterLab 4 draws, as do Jupyter Notebook 7 and VS Code. (The media type of Altair 6 ends in
`.json`, which nbformat refuses.)"""


def notebook_chart(figures: Sequence[Figure]) -> Any:
    """One figure, or several, as one Altair chart: wide ones one below the other, others side by side. It is shown
    offline: see `_OfflineChart`."""
    if len(figures) == 1:
        chart = _sized(figures[0]) | {"datasets": {DATA.name: list(figures[0].rows)}}
    else:
        charts = [_renamed(_sized(figure), f"_{number}") for number, figure in enumerate(figures)]
        placed = "vconcat" if any(figure.wide for figure in figures) else "hconcat"
        chart = {
            "params": [selection for each in charts for selection in each.pop("params", [])],
            placed: charts,
            "datasets": {f"{DATA.name}_{number}": list(figure.rows) for number, figure in enumerate(figures)},
        }
    drawn: Any = alt.Chart.from_dict(chart | {"config": theme(background="white", columns=5)})
    kind: Any = type(drawn)
    object.__setattr__(drawn, "__class__", _offline(kind))  # Altair takes other attributes for channels
    return drawn


class _OfflineChart:
    """A chart that a notebook shows without a network, as it is and as a picture.

    Altair's own default is an HTML page that loads Vega-Lite from the internet. Jupyter draws the chart. The picture
    is for GitHub, nbconvert and documentation, which run no JavaScript. A renderer that the user has chosen is kept.
    """

    def _repr_mimebundle_(self, *args: Any, **options: Any) -> Any:
        if alt.renderers.active != "default":
            return super()._repr_mimebundle_(*args, **options)  # type: ignore[misc]
        chart = self.to_dict()  # type: ignore[attr-defined]
        shown = {VEGA_LITE: chart | {"$schema": SCHEMA}, "image/svg+xml": svg(_without_hover(chart))}
        return shown | {"text/plain": repr(self)}


@functools.cache
def _offline(chart: type) -> type:
    """The same class of charts, shown offline."""
    return type(chart.__name__, (_OfflineChart, chart), {})


def _sized(figure: Figure) -> dict[str, Any]:
    chart = dict(figure.chart)
    if figure.panels:
        chart["concat"] = [{**panel, "width": WIDTH} for panel in chart["concat"]]
    elif not figure.cell:
        chart["width"] = WIDTH
    return chart | {"title": figure.title}


def _renamed(part: Any, suffix: str) -> Any:
    """The same with other names of data, views and selections, which have to differ between charts side by side."""
    if isinstance(part, list):
        return [_renamed(each, suffix) for each in part]
    if not isinstance(part, Mapping):
        return part
    found: dict[str, Any] = {}
    for key, value in part.items():
        if key in ("name", "param"):
            found[key] = value + suffix
        elif key == "views":
            found[key] = [view + suffix for view in value]
        else:
            found[key] = _renamed(value, suffix)
    return found


def _without_hover(part: Any) -> Any:
    """The same without the layers that only have tooltips."""
    if isinstance(part, list):
        return [
            _without_hover(each) for each in part if not (isinstance(each, Mapping) and each.get("name") == HOVER)
        ]
    return {key: _without_hover(each) for key, each in part.items()} if isinstance(part, Mapping) else part
