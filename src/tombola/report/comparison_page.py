"""The page that puts several experiments side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from tombola.report import tables
from tombola.report.document import Document, Section, Table
from tombola.report.figures import cost
from tombola.report.figures import level_figures as levels
from tombola.report.figures.figure import DATA, Absent, Figure, Numbers, figure
from tombola.report.figures.level_figures import ACCURACY, GAP, HEIGHT, STOP, Measure
from tombola.report.figures.style import DASHES, DENSE, EXPERIMENTS, SHAPES, cycle, ordered
from tombola.report.prose import answer
from tombola.report.report_data import ReportData
from tombola.stats.experiment_comparison import labels
from tombola.utils.differences import differences
from tombola.utils.text import plural

MOST_ANSWERS = 3
"""Above the figures; more would push them off the first screen, and stand below."""


def comparison(materials: Sequence[ReportData]) -> Document:
    """Everything about several experiments that can be laid over each other."""
    names = labels([m.folder for m in materials], [m.results.recipe.name for m in materials])
    named = dict(zip(names, materials, strict=True))
    caption = "Solid: tickets; broken lines: controls. Bands: confidence in the mean over replicates."
    first = [_overlaid(named, ACCURACY, caption), _overlaid(named, STOP, "Lower is sooner.")]
    answers = [(label, answer(material.summary)) for label, material in named.items()]
    words = [f"{label}: {said}" for label, said in answers] if len(answers) > MOST_ANSWERS else []
    problems = [
        f"{label}: {problem}."
        for label, material in named.items()
        for problem in [*([] if material.results.finished else ["not finished"]), *material.problems]
    ]
    return Document(
        title="Experiments side by side",
        about=f"{plural(len(named), 'experiment')}: {', '.join(named)}",
        answers=answers if len(answers) <= MOST_ANSWERS else [],
        first=Section("first", "Accuracy and early stop", parts=first),
        sections=[
            Section("experiments", "The experiments", words, [_table(named)]),
            Section("generalisation", "Generalisation and cost", parts=[_overlaid(named, GAP, ""), _costs(named)]),
            Section("differences", "What differs in their configurations", *_differences(named)),
        ],
        problems=problems,
    )


def _overlaid(named: Mapping[str, ReportData], measure: Measure, caption: str) -> Figure | Absent:
    rows: list[Numbers] = [
        {"experiment": label, **row}
        for label, material in named.items()
        for row in levels.by_level(material.summary, measure)
        if row["branch"] != DENSE  # it is the tickets' first point
    ]
    return figure(measure.name, measure.title, caption, _chart(named, rows, measure.axis, measure.form), rows)


def _costs(named: Mapping[str, ReportData]) -> Figure | Absent:
    rows: list[Numbers] = [
        {"experiment": label, **row} for label, material in named.items() for row in cost.costs(material)
    ]
    return figure("cost", "Cost of a run", "", _chart(named, rows, cost.AXIS, ".3~r", zero=True), rows)


def _chart(named: Mapping[str, ReportData], rows: Sequence[Numbers], axis: str, form: str, zero: bool = False) -> Any:
    experiments, branches = list(named), ordered(str(row["branch"]) for row in rows)
    chosen = alt.selection_point(name="chosen", fields=["experiment"], bind="legend")
    dashes = alt.Scale(domain=branches, range=cycle(DASHES, len(branches)))
    shapes = alt.Scale(domain=branches, range=cycle(SHAPES, len(branches)))
    colours = alt.Scale(domain=experiments, range=cycle(EXPERIMENTS, len(experiments)))
    legend = alt.Legend(title=None)
    base = alt.Chart(DATA).encode(
        x=levels.weights_left(row["weights_left"] for row in rows),
        color=alt.Color("experiment:N", scale=colours, legend=legend),
    )
    y = alt.Y("mean:Q", title=axis, scale=levels.vertical(rows, zero))
    faded = alt.condition(chosen, alt.value(1.0), alt.value(0.1))
    band = base.mark_area(clip=True).encode(
        y=alt.Y("low:Q", title=axis),
        y2="high:Q",
        detail="branch:N",
        opacity=alt.condition(chosen, alt.value(0.12), alt.value(0.02)),
    )
    line = base.mark_line().encode(
        y=y, strokeDash=alt.StrokeDash("branch:N", scale=dashes, legend=legend), opacity=faded
    )
    shown = [alt.Tooltip("experiment:N"), *levels.tooltip(form)]
    point = base.mark_point().encode(
        y=y, shape=alt.Shape("branch:N", scale=shapes, legend=legend), opacity=faded, tooltip=shown
    )
    layers = [line.properties(name="lines").add_params(chosen), point]
    if any(row["low"] is not None for row in rows):
        layers.insert(0, band.transform_filter("isValid(datum.low)"))
    return alt.layer(*layers).properties(width="container", height=HEIGHT)


def _table(named: Mapping[str, ReportData]) -> Table:
    rows = []
    for label, material in named.items():
        summary = material.summary
        dense = next((level["branches"]["ticket"] for level in summary["levels"] if level["level"] == 0), None)
        found = summary["smallest_winning"]
        seconds = sum(did["seconds"] for did in summary["engines"].values())
        rows.append(
            [
                label,
                str(material.folder),
                f"{summary['replicates']:,}",
                _mean(dense, "test_accuracy_at_stop", 100, ".2f", "%"),
                _mean(dense, "stop_iteration", 1, ",.0f", ""),
                tables.percent(found["weights_left"]) if found else "none",
                f"{found['weights']:,}" if found else tables.NONE,
                f"{seconds:,.0f} s",
            ]
        )
    head = [
        "experiment",
        "folder",
        "replicates",
        "dense: test accuracy",
        "dense: early stop",
        "smallest winning",
        "weights",
        "computing",
    ]
    return Table("experiments-table", "Side by side", head, rows, frozenset({0, 1}))


def _mean(branch: dict[str, Any] | None, key: str, factor: float, form: str, unit: str) -> str:
    if branch is None or not branch[key]["values"]:
        return tables.NONE
    return f"{factor * branch[key]['mean']:{form}}{unit}"


def _differences(named: Mapping[str, ReportData]) -> tuple[list[str], list[Table]]:
    found = differences([material.results.recipe.resolved() for material in named.values()])
    rows = [
        [key, *(tables.NONE if value is None else str(value) for value in values)] for key, values in found.items()
    ]
    if not rows:
        return ["Nothing."], []
    caption = "Keys of the configuration that are not the same in all; – is not set"
    head = ["key", *named]
    return [], [Table("differences-table", caption, head, rows, frozenset(range(len(head))))]
