"""Figures of single weights: the initial values that survive, and the connections that pixels keep."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import numpy.typing as npt

from tombola.experiments.layer_stats import BINS, REACH
from tombola.report.figures.chart import DATA, tooltip
from tombola.report.figures.figure import Figure, FigureRow, MissingFigure, figure, rounded
from tombola.report.figures.style import DENSE, ramp, style_of
from tombola.report.report_data import ReportData

MAX_LAYERS = 24
MAX_PIXELS = 32
"""The largest side of a map; larger ones show means over squares of pixels."""

LABEL = "format(datum.value, '.3~r') + '% of the weights left'"


def representative_levels(data: ReportData) -> list[int]:
    """A few levels: the first pruned one, one in the middle, the smallest winning one, and the sparsest."""
    pruned = [level.level for level in data.summary.levels if level.level > 0]
    if not pruned:
        return []
    found = data.summary.smallest_winning
    return sorted({pruned[0], pruned[(len(pruned) - 1) // 2], pruned[-1]} | ({found.level} if found else set()))


def initial_weights(data: ReportData) -> Figure | MissingFigure:
    """The initial values of the weights that survive, compared with those of all weights."""
    rows = histograms(data, [0, *representative_levels(data)])
    names = list(dict.fromkeys(str(row["layer"]) for row in rows))
    levels = sorted({rounded(float(row["weights_left"] or 0)) for row in rows if row["level"] != 0}, reverse=True)
    base = alt.Chart(DATA).encode(
        x=alt.X("value:Q", title="initial weight / RMS", axis=alt.Axis(grid=False)),
        y=alt.Y("density:Q", title="probability density"),
    )
    all_weights = base.transform_filter("datum.level == 0").mark_area(
        interpolate="step", color=style_of(DENSE).colour, opacity=0.35
    )
    colour = alt.Color(
        "weights_left:O",
        title="weights left (%)",
        sort="descending",
        scale=alt.Scale(domain=levels, range=ramp(len(levels))),
        legend=alt.Legend(symbolType="stroke", format=".3~r") if levels else None,
    )
    shown = tooltip(layer="text", weights_left=".3~r", value=".2f", density=".3f", weights=",")
    survivors = base.transform_filter("datum.level > 0").mark_line(interpolate="step", strokeWidth=1.6)
    chart = (
        alt.layer(all_weights, survivors.encode(color=colour, tooltip=shown))
        .properties(width=250, height=150)
        .facet(facet=alt.Facet("layer:N", title=None, sort=names), columns=3)
    )
    return figure(
        "initial-weights",
        "Initial values of the weights that survive",
        "Grey: the initial values of all weights of the layer. Lines: those of the weights that tickets keep. Every "
        "histogram has area 1. The unit is the root mean square of the layer's initial weights; the outermost bins "
        "include all values beyond them.",
        chart,
        rows,
        cell=250,
    )


def histograms(data: ReportData, levels: Sequence[int]) -> list[FigureRow]:
    """The density of initial weights by level, layer and bin, over all replicates."""
    left = data.percent_left
    counts: dict[tuple[int, str], npt.NDArray[np.int64]] = {}
    for layer in data.ticket_layers:
        if layer["start_histogram"] is not None and layer["level"] in levels and layer["level"] in left:
            there = counts.setdefault((layer["level"], layer["layer"]), np.zeros(BINS, np.int64))
            there += np.asarray(layer["start_histogram"])
    names = list(dict.fromkeys(name for _, name in counts))[:MAX_LAYERS]
    width = 2 * REACH / BINS
    return [
        {
            "layer": name,
            "level": level,
            "weights_left": left[level],
            "value": -REACH + (bin_ + 0.5) * width,
            "density": float(count / found.sum() / width),
            "weights": int(count),
        }
        for (level, name), found in sorted(
            (item for item in counts.items() if item[0][1] in names),
            key=lambda item: (names.index(item[0][1]), item[0][0]),
        )
        if found.sum()
        for bin_, count in enumerate(found)
    ]


def pixels(data: ReportData) -> Figure | MissingFigure:
    """The number of connections that each pixel of an image keeps."""
    title = "Connections that each pixel keeps"
    shape = data.results.inputs
    if len(shape) not in (2, 3):
        reason = "the inputs are not images." if shape else "the shape of the inputs is unknown."
        return MissingFigure("pixels", title, reason)
    rows = pixel_maps(data, representative_levels(data), (shape[-2], shape[-1]))
    if not rows:
        return MissingFigure("pixels", title, "no pruned layer has weights for single pixels.")
    columns = max(int(row["column"] or 0) for row in rows) + 1
    lines = max(int(row["row"] or 0) for row in rows) + 1
    side = max(1, round(210 / max(columns, lines)))  # an integer, so that there are no seams between the squares
    squares = (
        alt.Chart(DATA)
        .mark_rect()
        .encode(
            x=alt.X("column:O", axis=None, scale=alt.Scale(paddingInner=0)),
            y=alt.Y("row:O", axis=None, scale=alt.Scale(paddingInner=0)),
            color=alt.Color(
                "relative:Q",
                title="connections kept / mean over pixels",
                scale=alt.Scale(scheme="viridis", domainMin=0),
                legend=alt.Legend(format=".2~f", tickCount=4),
            ),
            tooltip=tooltip(row="", column="", connections=".3~r", relative=".2f"),
        )
        .properties(width=side * columns, height=side * lines)
    )
    header = alt.Header(labelExpr=LABEL)
    chart = squares.facet(facet=alt.Facet("weights_left:O", title=None, sort="descending", header=header), columns=4)
    caption = "Weights left at each pixel of the input, relative to the mean over all pixels. Means over replicates."
    return figure("pixels", title, caption, chart, rows, cell=side * columns)


def pixel_maps(data: ReportData, levels: Sequence[int], shape: tuple[int, int]) -> list[FigureRow]:
    """The mean number of connections by level and pixel, or square of pixels."""
    left = data.percent_left
    found: dict[int, list[Any]] = defaultdict(list)
    for layer in data.ticket_layers:
        if layer["input_connections"] and layer["level"] in levels and layer["level"] in left:
            found[layer["level"]].append(layer["input_connections"])
    rows: list[FigureRow] = []
    for level, maps in sorted(found.items()):
        mean = _coarser(np.mean(np.asarray(maps, dtype=np.float64), axis=0).reshape(shape))
        overall = float(mean.mean()) or 1.0
        rows += [
            {
                "level": level,
                "weights_left": left[level],
                "row": row,
                "column": column,
                "connections": float(value),
                "relative": float(value) / overall,
            }
            for (row, column), value in np.ndenumerate(mean)
        ]
    return rows


def _coarser(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Means over squares of pixels, so that no side exceeds `MAX_PIXELS`; incomplete squares are left out."""
    size = -(-max(image.shape) // MAX_PIXELS)
    rows, columns = (side // size for side in image.shape)
    if size == 1 or not rows or not columns:
        return image
    squares: npt.NDArray[np.float64] = image[: rows * size, : columns * size].reshape(rows, size, columns, size)
    return np.asarray(squares.mean(axis=(1, 3)))
