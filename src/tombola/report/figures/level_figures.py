"""Figures by level: a measure against the weights left, over replicates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from tombola.report.figures.figure import DATA, Absent, Figure, Numbers, figure
from tombola.report.figures.style import DENSE, SHAPES, colours, cycle, ordered

HEIGHT = 250

MOST_BANDS = 4
"""Where there are more branches, only these three have bands: ten over each other cannot be told apart."""

WIDE = 5
"""By how many times means differ that a linear axis would press most of them together."""

BANDED = ("ticket", DENSE, "reinit")


@dataclass(frozen=True)
class Measure:
    """What is drawn against the weights left."""

    name: str
    """Of the figure."""
    key: str
    """In the summary of a branch."""
    title: str
    axis: str
    factor: float = 1.0
    form: str = ",.0f"
    """How its values are shown."""
    least: float = 0.0
    most: float = math.inf
    """Between which it must lie: Student's t knows nothing of that, and with two replicates goes far beyond."""
    wide: bool = False
    """Whether its axis is logarithmic where its means differ by more than `WIDE` times."""


ACCURACY = Measure(
    "accuracy",
    "test_accuracy_at_stop",
    "Test accuracy at early stop",
    "test accuracy at early stop (%)",
    100,
    ".2f",
    most=100,
)
STOP = Measure("stop", "stop_iteration", "Early-stopping iteration", "early-stopping iteration", wide=True)
GAP = Measure(
    "gap", "gap_at_stop", "Generalisation gap at early stop", "train − test accuracy (points)", 100, ".2f", -100, 100
)
TRAIN = Measure(
    "train-accuracy",
    "train_accuracy_at_stop",
    "Training accuracy at early stop",
    "training accuracy at early stop (%)",
    100,
    ".2f",
    most=100,
)


def by_level(summary: dict[str, Any], measure: Measure) -> list[Numbers]:
    """A line for each branch and level, and two for the dense network: one at either end. Tickets come last, which
    draws them above all others."""
    levels = summary["levels"]
    rows: list[Numbers] = []
    if levels and levels[0]["level"] == 0:
        dense = levels[0]["branches"]["ticket"][measure.key]
        for end in (levels[0], levels[-1]) if len(levels) > 1 else levels:
            rows += _row(DENSE, 0, end, dense, measure)
    for branch in reversed(ordered(branch for level in levels for branch in level["branches"])):
        for level in levels:
            if branch in level["branches"]:
                rows += _row(branch, level["level"], level, level["branches"][branch][measure.key], measure)
    return rows


def _row(branch: str, level: int, at: dict[str, Any], found: dict[str, Any], measure: Measure) -> list[Numbers]:
    """One line, none where all diverged."""
    if not found["values"]:
        return []
    mean, low, high = (
        None if found[key] is None else min(max(measure.factor * found[key], measure.least), measure.most)
        for key in ("mean", "low", "high")
    )
    return [
        {
            "branch": branch,
            "level": level,
            "weights_left": 100 * at["weights_left"],
            "mean": mean,
            "low": low,
            "high": high,
            "replicates": len(found["values"]),
        }
    ]


def level_figure(summary: dict[str, Any], measure: Measure, caption: str = "") -> Figure | Absent:
    """A measure of tickets and controls, with a band for the confidence in the mean, and the dense network's."""
    rows = by_level(summary, measure)
    branches = ordered(str(row["branch"]) for row in rows)
    chart = lines(rows, branches, measure.axis, measure.form, wide=measure.wide)
    if len(branches) > MOST_BANDS:
        caption = (
            f"{caption} Other controls are drawn without bands, and as far as they lie near; the CSV file has all."
        )
    return figure(measure.name, measure.title, caption.strip(), chart, rows)


def lines(
    rows: Sequence[Numbers], branches: Sequence[str], axis: str, form: str, zero: bool = False, wide: bool = False
) -> Any:
    """Lines and bands of branches against the weights left. A click in the legend picks out a branch."""
    chosen = alt.selection_point(name="chosen", fields=["branch"], bind="legend")
    scale = alt.Scale(domain=branches, range=colours(branches))
    shape = alt.Scale(domain=branches, range=cycle(SHAPES, len(branches)))
    legend = alt.Legend(title=None)
    colour = alt.Color("branch:N", scale=scale, legend=legend)
    base = alt.Chart(DATA).encode(x=weights_left(row["weights_left"] for row in rows), color=colour)
    banded = [branch for branch in branches if branch in BANDED or len(branches) <= MOST_BANDS]
    y = alt.Y("mean:Q", title=axis, scale=vertical([row for row in rows if row["branch"] in banded], zero, wide))
    band = base.mark_area(clip=True).encode(
        y=alt.Y("low:Q", title=axis),
        y2="high:Q",
        opacity=alt.condition(chosen, alt.value(0.16), alt.value(0.02)),
    )
    line = base.mark_line(clip=True).encode(y=y, opacity=_faded(chosen))
    point = (
        base.transform_filter(f"datum.branch != '{DENSE}'")
        .mark_point(clip=True)
        .encode(
            y=y,
            shape=alt.Shape("branch:N", scale=shape, legend=legend),
            opacity=_faded(chosen),
            tooltip=tooltip(form),
        )
    )
    layers = [line.properties(name="lines").add_params(chosen), point]
    if any(row["low"] is not None for row in rows):
        kept = {"and": [alt.FieldOneOfPredicate(field="branch", oneOf=banded), "isValid(datum.low)"]}
        layers.insert(0, band.transform_filter(kept))
    return alt.layer(*layers).properties(width="container", height=HEIGHT)


def vertical(rows: Sequence[Numbers], zero: bool = False, wide: bool = False) -> Any:
    """The vertical scale. All means are in view, and bands as long as they leave the means room."""
    means = [float(row["mean"] or 0) for row in rows]
    if wide and means and min(means) > 0 and max(means) > WIDE * min(means):
        return alt.Scale(type="log", domain=[min(means) / 2, max(means) * 1.5], nice=False)
    room = max(means, default=0.0) - min(means, default=0.0)
    if zero or not room:
        return alt.Scale(zero=zero)
    ends = [float(end) for row in rows for end in (row["low"], row["high"]) if end is not None]
    low = max(min([*means, *ends]), min(means) - room)
    return alt.Scale(domain=[low, min(max([*means, *ends]), max(means) + room)], nice=True, zero=False)


def _faded(chosen: Any) -> Any:
    return alt.condition(chosen, alt.value(1.0), alt.value(0.12))


def tooltip(form: str, first: str = "branch", spread: bool = True) -> list[Any]:
    """What is shown of a point."""
    shown = [
        alt.Tooltip(f"{first}:N"),
        alt.Tooltip("level:Q"),
        alt.Tooltip("weights_left:Q", title="weights left (%)", format=".3~r"),
        alt.Tooltip("mean:Q", format=form),
    ]
    bounds = [alt.Tooltip("low:Q", format=form), alt.Tooltip("high:Q", format=form)]
    return [*shown, *bounds, alt.Tooltip("replicates:Q")] if spread else shown


def weights_left(values: Iterable[Any]) -> Any:
    """The horizontal axis: dense at the left, sparser to the right, each pruning about as wide as another."""
    there = sorted({float(value) for value in values}, reverse=True)
    low, high = (there[-1], there[0]) if there else (50.0, 100.0)
    if low == high:
        low, high = low / 1.5, high * 1.5
    return alt.X(
        "weights_left:Q",
        title="weights left (%)",
        scale=alt.Scale(type="log", domain=[low, high], reverse=True, nice=False, padding=10),
        axis=alt.Axis(values=apart(there, (high / low) ** (1 / 9)), format=".2~r", grid=False, labelOverlap="parity"),
    )


def apart(there: Sequence[float], factor: float) -> list[float]:
    """Of falling values those that are at least that factor apart, the first and the last among them."""
    kept: list[float] = []
    for value in there:
        if not kept or kept[-1] >= factor * value:
            kept.append(value)
    if kept and kept[-1] != there[-1]:
        kept[max(1, len(kept) - 1) :] = [there[-1]]
    return kept


def logarithmic(values: Iterable[Any]) -> tuple[Any, Any]:
    """A logarithmic vertical axis with a few lines: at powers of ten, or at 1, 2 and 5 where these are too few."""
    there = [float(value) for value in values if value]
    low, high = (min(there), max(there)) if there else (1.0, 10.0)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1,) if math.log10(high / low) > 3 else (1, 2, 5)
    ticks = [digit * 10.0**power for power in powers for digit in digits]
    scale = alt.Scale(type="log", domain=[low, high] if low < high else [low / 2, high * 2], nice=False)
    return scale, alt.Axis(values=[tick for tick in ticks if low * 0.99 <= tick <= high * 1.01], format="~r")
