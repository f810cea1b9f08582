"""Figures of stability: the error along lines between trainings, and how high it rises."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from tombola.report.figures.figure import DATA, HOVER, Absent, Figure, Numbers, figure
from tombola.report.figures.level_figures import HEIGHT
from tombola.report.figures.style import ramp
from tombola.stats.stability import Line


def walks_figure(walked: Sequence[Line]) -> Figure | Absent:
    """Test error along the lines, a curve for each k: means over lines and replicates."""
    rows = along_lines(walked)
    ks = sorted({int(row["k"] or 0) for row in rows})
    base = alt.Chart(DATA).encode(
        x=alt.X("share:Q", title="way from one end to the other", axis=alt.Axis(grid=False, format="%")),
        y=alt.Y("mean:Q", title="test error (%)", scale=alt.Scale(zero=False)),
    )
    colour = alt.Color(
        "k:N", title="iterations in common", scale=alt.Scale(domain=ks, range=ramp(len(ks))), legend=alt.Legend()
    )
    shown = [alt.Tooltip("k:Q"), alt.Tooltip("share:Q"), alt.Tooltip("mean:Q", format=".2f"), alt.Tooltip("lines:Q")]
    hover = base.mark_point(size=60, opacity=0).encode(tooltip=shown).properties(name=HOVER)
    return figure(
        "stability-lines",
        "Error on the straight line between two trainings",
        "They share the first k iterations and differ in batch order after. Means over lines and replicates.",
        alt.layer(base.mark_line().encode(color=colour), hover).properties(width="container", height=HEIGHT),
        rows,
    )


def along_lines(walked: Sequence[Line]) -> list[Numbers]:
    """The mean test error of whole lines, in percent, by k and share of the way."""
    errors: dict[int, list[list[float]]] = defaultdict(list)
    for line in walked:
        if line.errors is not None:
            errors[line.k].append(line.errors["test"])
    return [
        {"k": k, "share": share, "mean": 100 * mean, "lines": len(each)}
        for k, each in sorted(errors.items())
        for share, mean in zip(np.linspace(0, 1, len(each[0])).tolist(), np.mean(each, 0).tolist(), strict=True)
    ]


def barriers_figure(summary: Mapping[str, Any]) -> Figure | Absent:
    """The barrier on validation and test examples against k, and what counts as none."""
    tolerance = 100 * summary["tolerance"]
    rows: list[Numbers] = [
        {
            "k": candidate["k"],
            "examples": part,
            "tolerance": tolerance,
            **{name: _points(candidate[f"{part}_barrier"][name]) for name in ("mean", "low", "high")},
        }
        for candidate in summary["candidates"]
        for part in ("validation", "test")
    ]
    x = alt.X("k:O", title="iterations in common, k", axis=alt.Axis(labelAngle=0))
    colour = alt.Color(
        "examples:N",
        title=None,
        scale=alt.Scale(domain=["validation", "test"], range=["#1b7fc2", "#d55e00"]),
        legend=alt.Legend(),
    )
    base = alt.Chart(DATA).encode(x=x, xOffset="examples:N", color=colour)
    y = alt.Y("mean:Q", title="error barrier (points)")
    shown = [alt.Tooltip(f"{name}:Q", format=".2f") for name in ("mean", "low", "high")]
    bars = base.mark_bar(opacity=0.85).encode(y=y, tooltip=[alt.Tooltip("k:Q"), alt.Tooltip("examples:N"), *shown])
    spread = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2)
    rule = alt.Chart(DATA).mark_rule(strokeDash=[5, 4], color="#7d7d7d").encode(y="tolerance:Q")
    return figure(
        "stability-barriers",
        "Error barrier",
        "How far the error on the line rises above the mean of that at its ends. Below the dashed line the network "
        "counts as stable, by its validation examples.",
        alt.layer(bars, spread.encode(y="low:Q", y2="high:Q", color=alt.value("#7d7d7d")), rule).properties(
            width="container", height=HEIGHT
        ),
        rows,
    )


def _points(value: float | None) -> float | None:
    return None if value is None else 100 * value
