"""Figures of single weights: which initial values survive, and which pixels stay connected."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import numpy.typing as npt

from tombola.experiments.layer_stats import BINS, REACH
from tombola.report.figures.figure import DATA, Absent, Figure, Numbers, figure, rounded
from tombola.report.figures.style import BRANCHES, DENSE, ramp
from tombola.report.report_data import ReportData

MOST_LAYERS = 24
MOST_PIXELS = 32
"""A side; larger maps are made of squares of pixels."""

LABEL = "format(datum.value, '.2~r') + '% of the weights left'"


def telling(material: ReportData) -> list[int]:
    """A few levels that tell most: the first, one in the middle, the smallest winning, and the sparsest."""
    pruned = [level["level"] for level in material.summary["levels"] if level["level"] > 0]
    if not pruned:
        return []
    found = material.summary["smallest_winning"]
    chosen = {pruned[0], pruned[(len(pruned) - 1) // 2], pruned[-1]} | ({found["level"]} if found else set())
    return sorted(chosen)


def initial_weights(material: ReportData) -> Figure | Absent:
    """The initial values of the weights that survive, beside those of all weights."""
    rows = histograms(material, [0, *telling(material)])
    names = list(dict.fromkeys(str(row["layer"]) for row in rows))
    levels = sorted({rounded(float(row["weights_left"] or 0)) for row in rows if row["level"] != 0}, reverse=True)
    base = alt.Chart(DATA).encode(
        x=alt.X("value:Q", title="initial weight / RMS", axis=alt.Axis(grid=False)),
        y=alt.Y("density:Q", title="probability density"),
    )
    all_weights = base.transform_filter("datum.level == 0").mark_area(
        interpolate="step", color=BRANCHES[DENSE], opacity=0.35
    )
    colour = alt.Color(
        "weights_left:O",
        title="weights left (%)",
        sort="descending",
        scale=alt.Scale(domain=levels, range=ramp(len(levels))),
        legend=alt.Legend(symbolType="stroke", format=".2~r") if levels else None,
    )
    shown = [
        alt.Tooltip("layer:N"),
        alt.Tooltip("weights_left:Q", title="weights left (%)", format=".3~r"),
        alt.Tooltip("value:Q", format=".2f"),
        alt.Tooltip("density:Q", format=".3f"),
        alt.Tooltip("weights:Q", format=","),
    ]
    survivors = base.transform_filter("datum.level > 0").mark_line(interpolate="step", strokeWidth=1.6)
    chart = (
        alt.layer(all_weights, survivors.encode(color=colour, tooltip=shown))
        .properties(width=250, height=150)
        .facet(facet=alt.Facet("layer:N", title=None, sort=names), columns=3)
        .resolve_scale(y="independent")
    )
    return figure(
        "initial-weights",
        "Initial values of the weights that survive",
        "Grey: all weights of the layer, as training begins with them. Lines: those that tickets keep. Each shape "
        "has area 1. The unit is the root mean square of the layer's initial weights; the outermost bins also hold "
        "what lies further out.",
        chart,
        rows,
        wide=True,
        cell=250,
    )


def histograms(material: ReportData, levels: Sequence[int]) -> list[Numbers]:
    """The density of initial weights by level, layer and bin, all replicates together."""
    left = {level["level"]: 100 * level["weights_left"] for level in material.summary["levels"]}
    counts: dict[tuple[int, str], npt.NDArray[np.int64]] = {}
    for layer in material.tickets_layers:
        if layer["start_histogram"] is not None and layer["level"] in levels and layer["level"] in left:
            there = counts.setdefault((layer["level"], layer["layer"]), np.zeros(BINS, np.int64))
            there += np.asarray(layer["start_histogram"])
    names = list(dict.fromkeys(name for _, name in counts))[:MOST_LAYERS]
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
            counts.items(), key=lambda item: (names_index(names, item[0][1]), item[0][0])
        )
        if name in names and found.sum()
        for bin_, count in enumerate(found)
    ]


def names_index(names: Sequence[str], name: str) -> int:
    """The place of a name, behind all of them if it is none."""
    return names.index(name) if name in names else len(names)


def pixels(material: ReportData) -> Figure | Absent:
    """How many connections each pixel of an image keeps."""
    title = "Connections that each pixel keeps"
    shape = material.results.inputs
    if len(shape) not in (2, 3):
        return Absent(title, "the inputs are no images." if shape else "the shape of the inputs is not known.")
    rows = pixel_maps(material, telling(material), (shape[-2], shape[-1]))
    if not rows:
        return Absent(title, "no layer with weights for single pixels was pruned.")
    columns = max(int(row["column"] or 0) for row in rows) + 1
    lines = max(int(row["row"] or 0) for row in rows) + 1
    side = max(1, round(210 / max(columns, lines)))  # whole numbers: no seams between the squares
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
            tooltip=[
                alt.Tooltip("row:O"),
                alt.Tooltip("column:O"),
                alt.Tooltip("connections:Q", format=".3~r"),
                alt.Tooltip("relative:Q", title="of the mean", format=".2f"),
            ],
        )
        .properties(width=side * columns, height=side * lines)
    )
    header = alt.Header(labelExpr=LABEL)
    chart = squares.facet(facet=alt.Facet("weights_left:O", title=None, sort="descending", header=header), columns=4)
    caption = (
        "Mean over replicates of the weights left at each pixel of the input, relative to the mean over all pixels."
    )
    return figure("pixels", title, caption, chart, rows, wide=True, cell=side * columns)


def pixel_maps(material: ReportData, levels: Sequence[int], shape: tuple[int, int]) -> list[Numbers]:
    """The mean number of connections by level and pixel, or square of pixels."""
    left = {level["level"]: 100 * level["weights_left"] for level in material.summary["levels"]}
    found: dict[int, list[Any]] = defaultdict(list)
    for layer in material.tickets_layers:
        if layer["input_connections"] and layer["level"] in levels and layer["level"] in left:
            found[layer["level"]].append(layer["input_connections"])
    rows: list[Numbers] = []
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
    """Means of squares, so that no side has more than `MOST_PIXELS`; what does not fill a square is left out."""
    size = -(-max(image.shape) // MOST_PIXELS)
    rows, columns = (side // size for side in image.shape)
    if size == 1 or not rows or not columns:
        return image
    squares: npt.NDArray[np.float64] = image[: rows * size, : columns * size].reshape(rows, size, columns, size)
    return np.asarray(squares.mean(axis=(1, 3)))
