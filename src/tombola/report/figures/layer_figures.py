"""Figures of layers: what is left of each, and how far training moved it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import altair as alt
import numpy as np

from tombola.report.figures.figure import DATA, Absent, Figure, Numbers, figure
from tombola.report.figures.level_figures import HEIGHT, logarithmic, tooltip, weights_left
from tombola.report.figures.style import SHAPES, cycle, ramp
from tombola.report.report_data import ReportData


def densities(material: ReportData) -> Figure | Absent:
    """How much of each layer is left."""
    rows = by_layer(material, lambda layer: 100 * layer["weights"] / layer["weights_total"])
    rows = [row for row in rows if row["mean"]]
    return figure(
        "densities",
        "Weights left in each layer",
        "Means over replicates; both axes are logarithmic. A layer with no weights left has no point.",
        _chart(rows, "weights left in the layer (%)", *logarithmic(row["mean"] for row in rows), ".3~r"),
        rows,
    )


def sign_changes(material: ReportData) -> Figure | Absent:
    """How many of the weights left changed their sign."""

    def share(layer: dict[str, Any]) -> float | None:
        changed = layer["sign_changes"]
        return None if changed is None or not layer["weights"] else 100 * changed / layer["weights"]

    rows = by_layer(material, share)
    return figure(
        "signs",
        "Signs changed by training",
        "Of the weights left in a layer, the share that ended training with another sign than it began with.",
        _chart(rows, "signs changed (% of the weights left)", alt.Scale(), alt.Axis(), ".2f"),
        rows,
    )


def distances(material: ReportData) -> Figure | Absent:
    """How far training moved the weights left."""

    def relative(layer: dict[str, Any]) -> float | None:
        distance, norm = layer["distance"], layer["start_norm"]
        return None if distance is None or not norm else float(distance / norm)

    rows = by_layer(material, relative)
    return figure(
        "distances",
        "Distance travelled",
        "The length (L2 norm) of the change of the weights left, relative to the length of their initial values.",
        _chart(rows, "distance / initial norm", alt.Scale(), alt.Axis(), ".3~r"),
        rows,
    )


def by_layer(material: ReportData, of: Callable[[dict[str, Any]], float | None]) -> list[Numbers]:
    """The mean over replicates of a figure of the tickets' layers, by level."""
    left = {level["level"]: 100 * level["weights_left"] for level in material.summary["levels"]}
    values: dict[tuple[int, str], list[float]] = defaultdict(list)
    for layer in material.tickets_layers:
        value = of(layer)
        if value is not None and layer["level"] in left:
            values[layer["level"], layer["layer"]].append(value)
    return [
        {"layer": name, "level": level, "weights_left": left[level], "mean": float(np.mean(found))}
        for (level, name), found in sorted(values.items(), key=lambda item: item[0][0])
    ]


def _chart(rows: list[Numbers], axis: str, scale: Any, ticks: Any, form: str) -> Any:
    names = list(dict.fromkeys(str(row["layer"]) for row in rows))
    legend = alt.Legend(title=None, symbolType="stroke") if len(names) > len(SHAPES) else alt.Legend(title=None)
    chosen = alt.selection_point(name="chosen", fields=["layer"], bind="legend")
    base = alt.Chart(DATA).encode(
        x=weights_left(row["weights_left"] for row in rows),
        y=alt.Y("mean:Q", title=axis, scale=scale, axis=ticks),
        color=alt.Color("layer:N", sort=names, scale=alt.Scale(domain=names, range=ramp(len(names))), legend=legend),
        opacity=alt.condition(chosen, alt.value(1.0), alt.value(0.12)),
    )
    shapes = alt.Scale(domain=names, range=cycle(SHAPES, len(names)))
    points = base.mark_point().encode(
        shape=alt.Shape("layer:N", sort=names, scale=shapes, legend=legend),
        tooltip=tooltip(form, "layer", spread=False),
    )
    lines = base.mark_line().properties(name="lines").add_params(chosen)
    return alt.layer(lines, points).properties(width="container", height=HEIGHT)
