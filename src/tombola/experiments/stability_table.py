"""The table `stability.parquet`: one row for each network on a line between the final weights of two trainings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from tombola.runs.outcome import Outcome
from tombola.studies.lines import final_accuracy
from tombola.studies.request import InterpolationPoint

KEY = pa.schema([("replicate", pa.int32()), ("k", pa.int64()), ("pair", pa.int32()), ("share", pa.float64())])
"""The columns whose values are never missing."""

_FIGURES = pa.schema([(f"{split}_accuracy", pa.float64()) for split in ("train", "validation", "test")])

_OF_TICKETS = pa.schema([("line", pa.string()), ("level", pa.int32())])
"""Which tickets a line joins, `predecessor` or `order`, and the level of its first end; null for lines between
trainings of the dense network, and not written where all lines are."""

STABILITY = pa.unify_schemas([KEY, _FIGURES, _OF_TICKETS])


def point_row(replicate: int, level: int, pair: int, point: InterpolationPoint, outcome: Outcome) -> dict[str, Any]:
    """The row of one network; it has no accuracies if the outcome diverged."""
    return {
        "replicate": replicate,
        "k": point.k,
        "pair": pair,
        "share": point.share,
        "train_accuracy": outcome.measures["train_accuracy"],
        "validation_accuracy": None if outcome.measures.diverged else final_accuracy(outcome),
        "test_accuracy": outcome.measures["test_accuracy"],
        "line": point.tickets,
        "level": level if point.tickets else None,
    }


def stability_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """The rows in order, those of lines between tickets last."""

    def place(row: Mapping[str, Any]) -> list[Any]:
        return [row["line"] or "", row["level"] or 0, *(row[name] for name in KEY.names)]

    ordered = sorted(rows, key=place)
    with_tickets = any(row["line"] for row in ordered)
    schema = STABILITY if with_tickets else pa.unify_schemas([KEY, _FIGURES])
    return pa.Table.from_pylist(ordered, schema)
