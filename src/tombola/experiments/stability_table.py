"""The table `stability.parquet`: one row for each network on a line between the final weights of two trainings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from tombola.runs.outcome import Outcome
from tombola.studies.lines import final_figure
from tombola.studies.request import InterpolationPoint

KEY = pa.schema([("replicate", pa.int32()), ("k", pa.int64()), ("pair", pa.int32()), ("share", pa.float64())])
"""The columns whose values are never missing."""

RECIPE_FIGURES = ("train_accuracy", "validation_accuracy", "test_accuracy")

_OF_TICKETS = pa.schema([("line", pa.string()), ("level", pa.int32())])
"""Which tickets a line joins, `predecessor` or `order`, and the level of its first end; null for lines between
trainings of the dense network, and not written where all lines are."""

_PLACE = (*KEY.names, *_OF_TICKETS.names)


def schema_of(figures: Iterable[str], with_tickets: bool = True) -> pa.Schema:
    """The schema of a table with these figures: that of recipes if it has all of them."""
    own = [name for name in dict.fromkeys(figures) if name not in _PLACE]
    names = RECIPE_FIGURES if set(own) <= {*RECIPE_FIGURES} else own
    columns = pa.schema([(name, pa.float64()) for name in names])
    return pa.unify_schemas([KEY, columns, *([_OF_TICKETS] if with_tickets else [])])


STABILITY = schema_of(RECIPE_FIGURES)


def point_row(
    replicate: int, level: int, pair: int, point: InterpolationPoint, outcome: Outcome, figures: Iterable[str]
) -> dict[str, Any]:
    """The row of one network, with these figures of its weights; they are missing if the outcome diverged."""
    return {
        "replicate": replicate,
        "k": point.k,
        "pair": pair,
        "share": point.share,
        **{name: final_figure(outcome, name) for name in figures},
        "line": point.tickets,
        "level": level if point.tickets else None,
    }


def own_figures(outcome: Outcome) -> list[str]:
    """The figures that the user's functions measured: `validation_loss`, `test_loss`."""
    return [*dict.fromkeys(name.removesuffix("_at_stop") for name in outcome.measures.figures)]


def stability_table(rows: Iterable[Mapping[str, Any]], every_column: bool = False) -> pa.Table:
    """The rows in order, with lines between tickets last; with `every_column`, as the table is read from a file."""

    def place(row: Mapping[str, Any]) -> list[Any]:
        return [row["line"] or "", row["level"] or 0, *(row[name] for name in KEY.names)]

    ordered = sorted(rows, key=place)
    with_tickets = every_column or any(row["line"] for row in ordered)
    return pa.Table.from_pylist(ordered, schema_of((name for row in ordered for name in row), with_tickets))
