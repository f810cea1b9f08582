"""Figures of the report as Altair charts, with their data and the theme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from tombola.report.figures.chart import DATA
from tombola.report.figures.figure import Figure
from tombola.report.figures.style import theme

WIDTH = 380
"""The width of a chart without panels, in pixels."""


def notebook_chart(figures: Sequence[Figure]) -> Any:
    """One figure, or several side by side, as one Altair chart."""
    if len(figures) == 1:
        chart = _sized(figures[0]) | {"datasets": {DATA.name: list(figures[0].rows)}}
    else:
        charts = [_renamed(_sized(figure), f"_{number}") for number, figure in enumerate(figures)]
        chart = {
            "params": [selection for each in charts for selection in each.pop("params", [])],
            "hconcat": charts,
            "datasets": {f"{DATA.name}_{number}": list(figure.rows) for number, figure in enumerate(figures)},
        }
    return alt.Chart.from_dict(chart | {"config": theme(background="white")})


def _sized(figure: Figure) -> dict[str, Any]:
    width = {} if figure.cell else {"width": WIDTH}
    return dict(figure.chart) | width | {"title": figure.title}


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
