"""Figures of training: what was evaluated on the way, level by level."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from tombola.report.figures.figure import DATA, HOVER, Absent, Figure, Numbers, figure
from tombola.report.figures.level_figures import HEIGHT, apart, logarithmic
from tombola.report.figures.style import BRANCHES, DENSE, DENSE_TO_SPARSE
from tombola.report.report_data import ReportData

MOST_POINTS = 120
"""Of one curve. More cannot be seen."""

MOST_CURVES = 8
"""More lie over each other. The dense network and the sparsest level are always among them."""


MEANS = f"Means over replicates, of at most {MOST_CURVES} levels"


def validation_curves(material: ReportData) -> Figure | Absent:
    """Validation accuracy against iterations."""
    rows = curves(material, "validation_accuracy", 100)
    # The first iterations begin at chance: with them in view, all that matters would be one line at the top.
    seen = [float(row["mean"] or 0) for row in rows]
    low = float(np.quantile(seen, 0.08)) if seen else 0.0
    scale = alt.Scale(domain=[low, max(seen, default=1.0)], nice=True, zero=False)
    return figure(
        "validation-curves",
        "Validation accuracy during training",
        f"{MEANS}; thick and grey: the dense network. What lies below the lower edge is not shown.",
        _chart(rows, "validation accuracy (%)", scale, alt.Axis(), ".2f"),
        rows,
    )


def loss_curves(material: ReportData) -> Figure | Absent:
    """Training loss against iterations."""
    rows = [row for row in curves(material, "train_loss", 1) if float(row["mean"] or 0) > 0]
    return figure(
        "training-loss",
        "Training loss",
        f"{MEANS}, of the mean loss since the evaluation before; the vertical axis is logarithmic.",
        _chart(rows, "training loss", *logarithmic(row["mean"] for row in rows), ".3~g"),
        rows,
    )


def curves(material: ReportData, column: str, factor: float) -> list[Numbers]:
    """The mean of a column over the replicates' tickets, by level and iteration."""
    left = {level["level"]: 100 * level["weights_left"] for level in material.summary["levels"]}
    shown = thinned(list(left), MOST_CURVES)
    values: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in material.curves:
        if row["branch"] == "ticket" and row["level"] in shown and row[column] is not None:
            values[row["level"]][row["iteration"]].append(row[column])
    return [
        {
            "level": level,
            "weights_left": left[level],
            "iteration": iteration,
            "mean": factor * float(np.mean(by_iteration[iteration])),
        }
        for level, by_iteration in sorted(values.items())
        for iteration in thinned(sorted(by_iteration), MOST_POINTS)
    ]


def thinned(numbers: Sequence[int], most: int) -> list[int]:
    """At most so many of them, evenly, the first and the last among these."""
    chosen = np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int)
    return [numbers[i] for i in chosen]


def _marks(rows: Sequence[Numbers]) -> list[float]:
    """What is written at the legend's colours."""
    there = sorted({float(row["weights_left"] or 0) for row in rows if row["level"] != 0}, reverse=True)
    return apart(there, max(1.01, (there[0] / there[-1]) ** (1 / 4))) if there else []


def _chart(rows: Sequence[Numbers], axis: str, scale: Any, ticks: Any, form: str) -> Any:
    colour = alt.Color(
        "weights_left:Q",
        title="weights left (%)",
        scale=alt.Scale(type="log", range=list(DENSE_TO_SPARSE), reverse=True, nice=False),
        legend=alt.Legend(format=".2~r", values=_marks(rows)),
    )
    base = alt.Chart(DATA).encode(
        x=alt.X("iteration:Q", axis=alt.Axis(grid=False, tickCount=6)),
        y=alt.Y("mean:Q", title=axis, scale=scale, axis=ticks),
        detail="level:N",
    )
    tickets = base.transform_filter("datum.level > 0").mark_line(strokeWidth=1.6, clip=True).encode(color=colour)
    dense = base.transform_filter("datum.level == 0").mark_line(strokeWidth=3.5, color=BRANCHES[DENSE], clip=True)
    shown = [
        alt.Tooltip("level:Q"),
        alt.Tooltip("weights_left:Q", title="weights left (%)", format=".3~r"),
        alt.Tooltip("iteration:Q", format=","),
        alt.Tooltip("mean:Q", format=form),
    ]
    hover = base.mark_point(size=60, opacity=0, clip=True).encode(tooltip=shown).properties(name=HOVER)
    only_dense = all(row["level"] == 0 for row in rows)  # then there is no range to colour by
    return alt.layer(*([dense, hover] if only_dense else [dense, tickets, hover])).properties(
        width="container", height=HEIGHT
    )
