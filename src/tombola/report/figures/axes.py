"""The axes of figures: what they show, and where they have ticks."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import altair as alt

from tombola.report.figures.figure import FigureRow
from tombola.report.figures.style import DENSE, TUNED

LOG_AXIS_RATIO = 5
"""The ratio of the largest to the smallest mean above which an axis is logarithmic."""

REACH = 10
"""Tickets are in view up to so many margins from the dense network, or half-widths of its interval."""

View = tuple[float, float]
"""The lowest and the highest value that an axis shows."""


def weights_left_axis(values: Iterable[Any]) -> Any:
    """The horizontal axis: dense on the left, sparser to the right, on a logarithmic scale, with a tick at each level
    and labels where they fit."""
    ticks = sorted({float(value) for value in values}, reverse=True)
    low, high = (ticks[-1], ticks[0]) if ticks else (50.0, 100.0)
    if low == high:
        low, high = low / 1.5, high * 1.5
    return alt.X(
        "weights_left:Q",
        title="weights left (%)",
        scale=alt.Scale(type="log", domain=[low, high], reverse=True, nice=False, padding=12),
        axis=alt.Axis(values=ticks[::-1], format=".3~r", grid=False, labelOverlap="greedy", labelSeparation=5),
    )


def view(rows: Sequence[FigureRow], margin: float, worst: float | None, banded: Collection[str]) -> View | None:
    """What the vertical axis shows of the rows of one experiment: the dense network, its margin, and the tickets
    nearby. Tickets that have collapsed leave the figure unless they win, and so do controls that are far from these.
    `margin` is in the units of the rows, infinite to keep everything, and `worst` is where it ends. None if there is
    no range."""
    tickets = [row for row in rows if row["branch"] == "ticket"]
    dense = next((row for row in rows if row["branch"] == DENSE), None) or next(
        (row for row in tickets if row["level"] == 0), None
    )
    centre, reach = _reach(dense, margin)
    core = [
        float(row["mean"] or 0)
        for row in tickets
        if abs(float(row["mean"] or 0) - centre) <= reach or row.get("verdict") == "winning"
    ]
    shown = banded if math.isinf(reach) else ()
    core += [float(row["mean"] or 0) for row in rows if row["branch"] in (DENSE, TUNED, *shown)]
    core += [] if worst is None else [worst]
    if not core:
        return None
    low, high = min(core), max(core)
    beside = [row for row in rows if row["branch"] in banded]
    ends = [float(row[end] or 0) for row in beside for end in ("mean", "low", "high") if row[end] is not None]
    height = high - low
    return (max(min([low, *ends]), low - height), min(max([high, *ends]), high + height)) if height else None


def _reach(dense: FigureRow | None, margin: float) -> tuple[float, float]:
    """The dense network's mean, and how far from it tickets are in view."""
    if dense is None:
        return 0.0, math.inf
    low, high = dense["low"], dense["high"]
    half = 0.0 if low is None or high is None else (float(high) - float(low)) / 2
    return float(dense["mean"] or 0), REACH * max(margin, half) or math.inf


def joined_views(views: Iterable[View | None]) -> View | None:
    """What an axis shows that shows all of these; None if there are none."""
    found = [each for each in views if each is not None]
    return (min(low for low, _ in found), max(high for _, high in found)) if found else None


def logarithmic_view(means: Sequence[float]) -> View | None:
    """What a logarithmic axis of these means shows; None if they do not differ enough for one."""
    if not means or min(means) <= 0 or max(means) <= LOG_AXIS_RATIO * min(means):
        return None
    return min(means) / 2, max(means) * 1.5


def vertical_scale(shown: View | None, log: bool = False) -> Any:
    """The scale that shows this, or chooses by itself."""
    if shown is None:
        return alt.Scale(zero=False)
    return (
        alt.Scale(domain=[*shown], type="log", nice=False)
        if log
        else alt.Scale(domain=[*shown], nice=True, zero=False)
    )


def spaced_ticks(values: Sequence[float], factor: float) -> list[float]:
    """Of decreasing values those that differ by at least `factor`, including the first and the last."""
    kept: list[float] = []
    for value in values:
        if not kept or kept[-1] >= factor * value:
            kept.append(value)
    if kept and kept[-1] != values[-1]:
        kept[max(1, len(kept) - 1) :] = [values[-1]]
    return kept


def logarithmic(values: Iterable[Any]) -> tuple[Any, Any]:
    """A logarithmic vertical scale, and its axis: ticks at powers of ten, or at 1, 2 and 5 if these are too few."""
    positive = [float(value) for value in values if value]
    low, high = (min(positive), max(positive)) if positive else (1.0, 10.0)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1,) if math.log10(high / low) > 3 else (1, 2, 5)
    ticks = [digit * 10.0**power for power in powers for digit in digits]
    scale = alt.Scale(type="log", domain=[low, high] if low < high else [low / 2, high * 2], nice=False)
    return scale, alt.Axis(values=[tick for tick in ticks if low * 0.99 <= tick <= high * 1.01], format="~r")
