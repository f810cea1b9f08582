"""The chart of a measure against the weights left, of one experiment or of several."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from tombola.report.figures.axes import View, vertical_scale, weights_left_axis
from tombola.report.figures.chart import DATA, tooltip
from tombola.report.figures.figure import FigureRow
from tombola.report.figures.style import DENSE, EXPERIMENTS, PAPER, TUNED, VERDICTS, WORDS, cycle, ordered, style_of

MAX_BANDS = 4
"""The largest number of bands: more that overlap cannot be told apart."""

MARK_SIZE, CONTROL_SIZE = 75, 38
"""Of points of tickets and of controls, in square pixels."""

HEADING = 28
"""The space above a panel for its heading, in pixels."""

RULES = (DENSE, TUNED)
"""What is drawn as a horizontal line."""

IS_RULE = f"indexof({[*RULES]}, datum.branch) >= 0"

HOLLOW = "ticket, cannot tell"

SERIES = (
    f"datum.branch == 'ticket' ? (datum.level == 0 ? '{DENSE}' : isValid(datum.verdict) ? 'ticket, ' + datum.verdict"
    " : 'ticket') : datum.branch"
)
"""What a point stands for: tickets by verdict, the ticket of level 0 as the dense network, controls by name."""


@dataclass(frozen=True)
class LevelAxis:
    """The vertical axis of a measure, and what belongs to it."""

    title: str
    form: str
    """The format of values."""
    zero: bool = False
    """Whether the axis begins at 0 and shows everything."""
    shown: View | None = None
    """What is in view; None for everything."""
    logarithmic: bool = False
    worst: float | None = None
    """Where the shading of the margin ends, which begins at the dense network; None for no shading."""
    label_winner: bool = False
    """Whether the percentage of weights left stands beside the smallest winning ticket."""

    @property
    def scale(self) -> Any:
        """The vertical scale."""
        return alt.Scale(zero=True) if self.zero else vertical_scale(self.shown, self.logarithmic)


def bands_that_matter(controls: Iterable[str], experiments: int = 1) -> list[str]:
    """The branches that have bands: tickets, and the verdict's control, unless there would be too many."""
    kept: list[str] = []
    for branches in (["ticket"], sorted(set(controls))):
        if (len(kept) + len(branches)) * experiments <= MAX_BANDS:
            kept += branches
    return kept


def series_of(row: FigureRow) -> str:
    """The same as `SERIES`."""
    if row["branch"] != "ticket":
        return str(row["branch"])
    return DENSE if row["level"] == 0 else f"ticket, {row['verdict']}" if row.get("verdict") else "ticket"


def series_names(rows: Sequence[FigureRow]) -> list[str]:
    """All series of the rows in the order of the legend."""
    found = {series_of(row) for row in rows}
    tickets = [name for name in ("ticket", *(f"ticket, {verdict}" for verdict in VERDICTS)) if name in found]
    return [*tickets, *ordered(found - set(tickets))]


def series_shape(series: str) -> str:
    """The shape of a series."""
    return VERDICTS.get(series.removeprefix("ticket, ")) or style_of(series).shape


def series_colour(series: str) -> str:
    """The colour of a series."""
    return style_of("ticket" if series.startswith("ticket, ") else series).colour


def level_chart(
    rows: Sequence[FigureRow],
    axis: LevelAxis,
    banded: Collection[str],
    experiments: Sequence[str] = (),
    heading: str = "",
) -> Any:
    """Lines, points and bands against the weights left. Branches have colours; if there are several `experiments`,
    these have. A click in the legend highlights one. A `heading` is for a panel of a figure."""
    names, group = series_names(rows), "experiment" if experiments else "series"
    chosen = alt.selection_point(name="chosen", fields=[group], bind="legend")
    visible = alt.condition(chosen, alt.value(1.0), alt.value(0.12))
    colours = (
        alt.Scale(domain=[*experiments], range=cycle(EXPERIMENTS, len(experiments)))
        if experiments
        else series_scale(names)
    )
    offset = HEADING if heading else alt.Undefined
    legend = alt.Legend(title=None, values=[*(experiments or names)], offset=offset)
    base = alt.Chart(DATA).encode(color=alt.Color(f"{group}:N", scale=colours, legend=legend))
    x = weights_left_axis(row["weights_left"] for row in rows)
    y = alt.Y("mean:Q", title=axis.title, scale=axis.scale)
    branches = ordered(str(row["branch"]) for row in rows)
    dashes = alt.Scale(domain=branches, range=[list(style_of(branch).dash) for branch in branches])
    drawn = base.encode(y=y, opacity=visible, tooltip=_tooltip(axis.form, experiments))
    dashed = drawn.transform_calculate(series="datum.branch").encode(
        strokeDash=alt.StrokeDash("branch:N", scale=dashes, legend=None)
    )
    layers = [] if axis.worst is None else [margin_band(y, axis.worst)]
    if any(row["low"] is not None and row["branch"] in banded for row in rows):
        kept: Any = {"and": [alt.FieldOneOfPredicate(field="branch", oneOf=[*banded]), "isValid(datum.low)"]}
        faded = alt.condition(chosen, alt.value(0.16), alt.value(0.02))
        band = base.transform_filter(kept).transform_calculate(series="datum.branch").mark_area(clip=True)
        low = alt.Y("low:Q", title=axis.title, scale=axis.scale)
        layers.append(band.encode(x=x, y=low, y2="high:Q", detail="branch:N", opacity=faded))
    if any(row["branch"] in RULES for row in rows):
        layers.append(dashed.transform_filter(IS_RULE).mark_rule(strokeWidth=1.8, clip=True))
    line = dashed.transform_filter(f"!({IS_RULE})").mark_line(clip=True).encode(x=x, detail="branch:N")
    layers.append(line.properties(name="lines").add_params(chosen))
    points = drawn.transform_filter(f"!({IS_RULE})").encode(x=x)
    layers += marks(points, names, legend if not experiments else _shape_legend(names))
    won = [row for row in rows if row.get("verdict") == "winning"]
    if won and axis.label_winner:
        layers.append(_winner_label(max(int(row["level"] or 0) for row in won), x, y))
    return alt.layer(*layers, *panel_heading(heading))


def series_scale(names: Sequence[str]) -> Any:
    """The colours of series."""
    every = list(dict.fromkeys([*names, "ticket"]))  # lines of tickets are of this series
    return alt.Scale(domain=every, range=[series_colour(name) for name in every])


def _shape_legend(names: Sequence[str]) -> Any:
    grey = style_of(DENSE).colour
    return alt.Legend(title=None, values=[*names], orient="bottom", symbolFillColor=grey, symbolStrokeColor=grey)


def marks(points: Any, names: Sequence[str], legend: Any) -> list[Any]:
    """The points of series, with a disc of the paper's colour below hollow ones, so that no line is seen in them. A
    legend with the names of `series_scale` is joined with its legend."""
    every = list(dict.fromkeys([*names, "ticket"]))
    scale = alt.Scale(domain=every, range=[series_shape(name) for name in every])
    shape = alt.Shape("series:N", scale=scale, legend=legend)
    size = alt.condition("datum.branch == 'ticket'", alt.value(MARK_SIZE), alt.value(CONTROL_SIZE))
    each = points.transform_calculate(series=SERIES).mark_point(clip=True).encode(shape=shape, size=size)
    if HOLLOW not in names:
        return [each]
    channels = {name: getattr(points.encoding, name) for name in ("x", "y", "tooltip")}
    places = {name: channel for name, channel in channels.items() if channel is not alt.Undefined}
    disc = alt.Chart(DATA).transform_calculate(series=SERIES).transform_filter(f"datum.series == '{HOLLOW}'")
    return [disc.mark_point(style=PAPER, clip=True, size=MARK_SIZE, shape="circle").encode(**places), each]


def margin_band(y: Any, worst: float) -> Any:
    """The shading from the dense network's mean, or a constant `y`, to the `worst` that the margin allows."""
    dense = alt.Chart(DATA).transform_filter(f"datum.branch == '{DENSE}'")
    mark = dense.mark_rect(color=style_of(DENSE).colour, opacity=0.16, clip=True)
    return mark.encode(y=y, y2=alt.Y2Datum(worst))


def panel_heading(text: str) -> list[Any]:
    """The heading of a panel. Titles of panels side by side would not be in one line; empty without a text."""
    once = alt.Chart(DATA).transform_filter(f"datum.branch == '{DENSE}'")
    mark = once.mark_text(style=WORDS, align="left", fontSize=12.5, fontWeight=600)
    return [mark.encode(x=alt.value(0), y=alt.value(-16), text=alt.value(text))] if text else []


def _winner_label(level: int, x: Any, y: Any) -> Any:
    """The percentage of weights left, beside the ticket of a level."""
    found = alt.Chart(DATA).transform_filter(f"datum.branch == 'ticket' && datum.level == {level}")
    mark = found.mark_text(style=WORDS, dy=-14, fontSize=12, fontWeight=600)
    return mark.encode(x=x, y=y, text="label:N").transform_calculate(label="format(datum.weights_left, '.3~r') + '%'")


def _tooltip(form: str, experiments: Sequence[str]) -> list[Any]:
    shown = tooltip(branch="text", level="", weights_left=".3~r", mean=form, low=form, high=form, replicates="")
    return [*(tooltip(experiment="text") if experiments else []), *shown]
