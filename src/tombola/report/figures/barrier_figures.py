"""Figures of stability: the error on straight lines between trainings, and the error barriers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict

import altair as alt
import numpy as np

from tombola.report.figures.figure import DATA, HOVER, Figure, FigureRow, MissingFigure, figure, tooltip
from tombola.report.figures.style import BRANCHES, DENSE, ramp
from tombola.stats.error_barriers import InterpolationPath
from tombola.stats.summary import StabilitySummary


def interpolation_figure(paths: Sequence[InterpolationPath]) -> Figure | MissingFigure:
    """Test error along the paths, a curve for each k: means over paths and replicates."""
    rows = mean_errors(paths)
    ks = sorted({int(row["k"] or 0) for row in rows})
    base = alt.Chart(DATA).encode(
        x=alt.X("share:Q", title="position between the ends", axis=alt.Axis(grid=False, format="%")),
        y=alt.Y("mean:Q", title="test error (%)", scale=alt.Scale(zero=False)),
    )
    colour = alt.Color(
        "k:N", title="shared iterations, k", scale=alt.Scale(domain=ks, range=ramp(len(ks))), legend=alt.Legend()
    )
    shown = tooltip(k="", share="", mean=".2f", lines="")
    hover = base.mark_point(size=60, opacity=0).encode(tooltip=shown).properties(name=HOVER)
    return figure(
        "stability-lines",
        "Error on the straight line between two trainings",
        "They share the first k iterations, and then differ in batch order. Means over lines and replicates.",
        alt.layer(base.mark_line().encode(color=colour), hover),
        rows,
    )


def mean_errors(paths: Sequence[InterpolationPath]) -> list[FigureRow]:
    """The mean test error of complete paths, in percent, by k and position on the path."""
    errors: dict[int, list[list[float]]] = defaultdict(list)
    for path in paths:
        if path.errors is not None:
            errors[path.k].append(path.errors["test"])
    return [
        {"k": k, "share": share, "mean": 100 * mean, "lines": len(each)}
        for k, each in sorted(errors.items())
        for share, mean in zip(np.linspace(0, 1, len(each[0])).tolist(), np.mean(each, 0).tolist(), strict=True)
    ]


def barriers_figure(stability: StabilitySummary) -> Figure | MissingFigure:
    """The error barriers on validation and test examples against k, and the tolerance."""
    rows: list[FigureRow] = []
    for candidate in stability.candidates:
        for split, barrier in (("validation", candidate.validation_barrier), ("test", candidate.test_barrier)):
            if found := barrier.spread:
                points = {name: None if value is None else 100 * value for name, value in asdict(found).items()}
                rows.append({"k": candidate.k, "examples": split, "tolerance": 100 * stability.tolerance, **points})
    x = alt.X("k:O", title="shared iterations, k", axis=alt.Axis(labelAngle=0))
    scale = alt.Scale(domain=["validation", "test"], range=[BRANCHES["ticket"], BRANCHES["reinit"]])
    colour = alt.Color("examples:N", title=None, scale=scale, legend=alt.Legend())
    base = alt.Chart(DATA).encode(x=x, xOffset="examples:N", color=colour)
    y = alt.Y("mean:Q", title="error barrier (points)")
    shown = tooltip(k="", examples="text", mean=".2f", low=".2f", high=".2f")
    bars = base.mark_bar(opacity=0.85).encode(y=y, tooltip=shown)
    spread = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2)
    grey = BRANCHES[DENSE]
    tolerance = alt.Chart(DATA).mark_rule(strokeDash=[5, 4], color=grey).encode(y="tolerance:Q")
    return figure(
        "stability-barriers",
        "Error barrier",
        "The highest error on the line minus the mean error of its ends. The network is stable if the barrier on the "
        "validation examples is not above the dashed line.",
        alt.layer(bars, spread.encode(y="low:Q", y2="high:Q", color=alt.value(grey)), tolerance),
        rows,
    )
