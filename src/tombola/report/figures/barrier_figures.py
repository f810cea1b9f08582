"""Figures of stability: the error on straight lines between trainings, and the error barriers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict

import altair as alt
import numpy as np

from tombola.report.barrier_units import BarrierUnits
from tombola.report.figures.chart import DATA, tooltip
from tombola.report.figures.figure import HOVER, Figure, FigureRow, MissingFigure, figure
from tombola.report.figures.style import DENSE, LINES, ramp, style_of
from tombola.stats.error_barriers import InterpolationPath
from tombola.stats.summary import StabilitySummary


def interpolation_figure(paths: Sequence[InterpolationPath], units: BarrierUnits) -> Figure | MissingFigure:
    """Test error along the paths, or the metric of the best examples that there are, a curve for each k: means over
    paths and replicates."""
    split = "test" if any("test" in path.errors for path in paths) else "validation"
    rows, what = mean_errors(paths, units.along_factor, split), units.along.removesuffix(" (%)")
    ks = sorted({int(row["k"] or 0) for row in rows})
    base = alt.Chart(DATA).encode(
        x=alt.X("share:Q", title="position between the ends", axis=alt.Axis(grid=False, format="%")),
        y=alt.Y("mean:Q", title=f"{split} {units.along}", scale=alt.Scale(zero=False)),
    )
    colour = alt.Color(
        "k:N", title="shared iterations, k", scale=alt.Scale(domain=ks, range=ramp(len(ks))), legend=alt.Legend()
    )
    shown = tooltip(k="", share="", mean=units.form, lines="")
    hover = base.mark_point(size=60, opacity=0).encode(tooltip=shown).properties(name=HOVER)
    return figure(
        "stability-lines",
        f"{what[0].upper()}{what[1:]} on the straight line between two trainings",
        "They share the first k iterations, and then differ in batch order. Means over lines and replicates.",
        alt.layer(base.mark_line().encode(color=colour), hover),
        rows,
    )


def mean_errors(paths: Sequence[InterpolationPath], factor: float, split: str = "test") -> list[FigureRow]:
    """The mean error of complete paths times `factor`, by k and position on the path."""
    errors: dict[int, list[list[float]]] = defaultdict(list)
    for path in paths:
        if along := path.errors.get(split):
            errors[path.k].append(along)
    return [
        {"k": k, "share": share, "mean": factor * mean, "lines": len(each)}
        for k, each in sorted(errors.items())
        for share, mean in zip(np.linspace(0, 1, len(each[0])).tolist(), np.mean(each, 0).tolist(), strict=True)
    ]


def barriers_figure(stability: StabilitySummary, units: BarrierUnits) -> Figure | MissingFigure:
    """The error barriers on validation and test examples against k, and the tolerance."""
    rows: list[FigureRow] = []
    for candidate in stability.candidates:
        for split, barrier in (("validation", candidate.validation_barrier), ("test", candidate.test_barrier)):
            if found := barrier.spread:
                bar = {name: None if v is None else units.factor * v for name, v in asdict(found).items()}
                rows.append(
                    {"k": candidate.k, "examples": split, "tolerance": units.factor * stability.tolerance, **bar}
                )
    x = alt.X("k:O", title="shared iterations, k", axis=alt.Axis(labelAngle=0))
    scale = alt.Scale(domain=["validation", "test"], range=[*LINES])
    colour = alt.Color("examples:N", title=None, scale=scale, legend=alt.Legend())
    base = alt.Chart(DATA).encode(x=x, xOffset="examples:N", color=colour)
    y = alt.Y("mean:Q", title=units.label)
    shown = tooltip(k="", examples="text", mean=units.form, low=units.form, high=units.form)
    bars = base.mark_bar(opacity=0.85).encode(y=y, tooltip=shown)
    spread = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2)
    grey = style_of(DENSE).colour
    tolerance = alt.Chart(DATA).mark_rule(strokeDash=[5, 4], color=grey).encode(y="tolerance:Q")
    name = stability.metric.name
    what = "The highest error on the line minus the mean error of its ends."
    if not stability.metric.fraction:
        what = f"How much worse the worst {name} on the line is than the mean of its ends."
    return figure(
        "stability-barriers",
        units.title,
        f"{what} The network is stable if the barrier on the validation examples is not above the dashed line.",
        alt.layer(bars, spread.encode(y="low:Q", y2="high:Q", color=alt.value(grey)), tolerance),
        rows,
    )
