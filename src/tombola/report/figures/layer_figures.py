"""Figures of layers: weights and units left, sign changes, and the distance travelled in training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from tombola.report.figures.axes import logarithmic, weights_left_axis
from tombola.report.figures.chart import DATA, tooltip
from tombola.report.figures.figure import Figure, FigureRow, MissingFigure, figure
from tombola.report.figures.style import SHAPES, cycle, ramp
from tombola.report.report_data import ReportData


def densities(data: ReportData) -> Figure | MissingFigure:
    """The percentage of weights left in each layer."""
    rows = [row for row in layer_rows(data, "weights", "weights_total", 100) if row["mean"]]
    return figure(
        "densities",
        "Weights left in each layer",
        "Means over replicates; both axes are logarithmic. A layer with no weights left has no point.",
        _chart(rows, "weights left in the layer (%)", *logarithmic(row["mean"] for row in rows), ".3~r"),
        rows,
    )


def units_left(data: ReportData, what: str) -> Figure | MissingFigure:
    """The percentage of units left, called `what`, of those that the outputs of each layer belong to."""
    dense = {(row["replicate"], row["layer"]): row["outputs"] for row in data.ticket_layers if row["level"] == 0}
    layers = [{**row, "dense": dense.get((row["replicate"], row["layer"]))} for row in data.ticket_layers]
    rows = layer_rows(data, "outputs", "dense", 100, layers)
    return figure(
        "units",
        f"{what.capitalize()} left in each layer",
        f"The {what} of the layer's outputs that have a weight left. Means over replicates. Layers whose outputs are "
        "added up keep the same.",
        _chart(rows, f"{what} left (%)", alt.Scale(domainMin=0), alt.Axis(), ".3~r"),
        rows,
    )


def sign_changes(data: ReportData) -> Figure | MissingFigure:
    """The percentage of the weights left that changed their sign."""
    rows = layer_rows(data, "sign_changes", "weights", 100)
    return figure(
        "signs",
        "Signs changed by training",
        "The share of the weights left in a layer whose sign at the end of training differs from their initial sign.",
        _chart(rows, "signs changed (% of the weights left)", alt.Scale(), alt.Axis(), ".2f"),
        rows,
    )


def distances(data: ReportData) -> Figure | MissingFigure:
    """The distance that training moved the weights left."""
    rows = layer_rows(data, "distance", "start_norm")
    return figure(
        "distances",
        "Distance travelled",
        "The length (L2 norm) of the change of the weights left, relative to the length of their initial values.",
        _chart(rows, "distance / initial norm", alt.Scale(), alt.Axis(), ".3~r"),
        rows,
    )


def layer_rows(
    data: ReportData,
    numerator: str,
    denominator: str,
    factor: int = 1,
    layers: Sequence[Mapping[str, Any]] | None = None,
) -> list[FigureRow]:
    """The mean over replicates of a ratio of columns of the tickets' layers, by level, if defined. `layers` are their
    rows with further columns."""
    left = data.percent_left
    values: dict[tuple[int, str], list[float]] = defaultdict(list)
    for layer in data.ticket_layers if layers is None else layers:
        if layer[numerator] is not None and layer[denominator] and layer["level"] in left:
            values[layer["level"], layer["layer"]].append(factor * layer[numerator] / layer[denominator])
    return [
        {"layer": name, "level": level, "weights_left": left[level], "mean": float(np.mean(found))}
        for (level, name), found in sorted(values.items(), key=lambda item: item[0][0])
    ]


def _chart(rows: list[FigureRow], axis: str, scale: Any, ticks: Any, form: str) -> Any:
    names = list(dict.fromkeys(str(row["layer"]) for row in rows))
    legend = alt.Legend(title=None, symbolType="stroke") if len(names) > len(SHAPES) else alt.Legend(title=None)
    chosen = alt.selection_point(name="chosen", fields=["layer"], bind="legend")
    base = alt.Chart(DATA).encode(
        x=weights_left_axis(row["weights_left"] for row in rows),
        y=alt.Y("mean:Q", title=axis, scale=scale, axis=ticks),
        color=alt.Color("layer:N", sort=names, scale=alt.Scale(domain=names, range=ramp(len(names))), legend=legend),
        opacity=alt.condition(chosen, alt.value(1.0), alt.value(0.12)),
    )
    shapes = alt.Scale(domain=names, range=cycle(SHAPES, len(names)))
    points = base.mark_point().encode(
        shape=alt.Shape("layer:N", sort=names, scale=shapes, legend=legend),
        tooltip=tooltip(layer="text", level="", weights_left=".3~r", mean=form),
    )
    lines = base.mark_line().properties(name="lines").add_params(chosen)
    return alt.layer(lines, points)
