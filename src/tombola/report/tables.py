"""The tables of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tombola.exports.measuring import Figures
from tombola.report.document import Table
from tombola.report.export_tables import SIZES, SPEEDS, sizes, speeds
from tombola.report.figures.style import ordered
from tombola.report.prose import advice, better

NONE = "–"


def verdicts(summary: dict[str, Any]) -> Table:
    """Tickets beside the dense network: one line for each level."""
    rows = []
    for level in summary["levels"]:
        verdict = level["verdict"]
        state = verdict["state"] + (f": {verdict['reason']}" if verdict["reason"] else "") + better(level)
        rows.append(
            [
                str(level["level"]),
                percent(level["weights_left"]),
                f"{level['weights']:,}",
                state,
                *compared(verdict["accuracy_difference"], "p_not_worse", ".2f"),
                *compared(verdict["stop_difference"], "p_not_worse", ".1f"),
                p_value(verdict["p_better_than_control"]),
                NONE if verdict["more_replicates"] is None else f"{verdict['more_replicates']:,}",
            ]
        )
    head = [
        "level",
        "weights left",
        "weights",
        "verdict",
        "accuracy, points",
        "p",
        "early stop, %",
        "p",
        "p, control",
        "more replicates",
    ]
    return Table("verdict-dense", _bounds(summary, "Tickets beside the dense network"), head, rows, frozenset({3}))


def controls(summary: dict[str, Any]) -> list[Table]:
    """Tickets beside each control, a table for each; the one that the verdict asks for stands open."""
    names = ordered(name for level in summary["levels"] for name in level["against"])
    head = ["level", "weights left", "accuracy, points", "p", "early stop, %", "p"]
    tables: list[Table] = []
    for name in names:
        rows = []
        for level in summary["levels"]:
            if name in level["against"]:
                found = level["against"][name]
                accuracy = compared(found["accuracy_difference"], "p_better", ".2f")
                stop = compared(found["stop_difference"], "p_better", ".1f")
                rows.append([str(level["level"]), percent(level["weights_left"]), *accuracy, *stop])
        caption = _bounds(summary, f"Tickets beside the control “{name}”")
        tables.append(
            Table(f"verdict-{len(tables)}", caption, head, rows, folded=name != summary["criteria"]["control"])
        )
    return tables


def _bounds(summary: dict[str, Any], what: str) -> str:
    return f"{what}: mean difference [one-sided bounds, each {summary['criteria']['confidence']:.0%} sure]"


def compared(found: dict[str, Any] | None, p: str, form: str) -> list[str]:
    """A difference in percent with its bounds, and a p-value."""
    if found is None:
        return [NONE, NONE]
    low, high = (NONE if found[key] is None else f"{100 * found[key]:+{form}}" for key in ("low", "high"))
    return [f"{100 * found['mean']:+{form}} [{low}, {high}]".replace("-", "−"), p_value(found[p])]


def p_value(p: float | None) -> str:
    """As is usual: small ones only bounded."""
    if p is None:
        return NONE
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def percent(fraction: float) -> str:
    """Three digits are enough to tell levels apart."""
    return f"{float(f'{100 * fraction:.3g}'):g}%"


def generalisation(summary: dict[str, Any]) -> Table:
    """Training accuracy and gap, by level and branch."""
    branches = ordered(branch for level in summary["levels"] for branch in level["branches"])
    head = ["level", "weights left"]
    for branch in branches:
        head += [f"{branch}: training accuracy", "gap at early stop", "gap at the end"]
    rows = []
    for level in summary["levels"]:
        cells = [str(level["level"]), percent(level["weights_left"])]
        for branch in branches:
            measures = level["branches"].get(branch, {})
            cells.append(_mean(measures.get("train_accuracy_at_stop"), "%"))
            cells += [_mean(measures.get(key)) for key in ("gap_at_stop", "gap")]
        rows.append(cells)
    caption = "Training accuracy at early stop in %; training minus test accuracy in points; means over replicates"
    return Table("generalisation-table", caption, head, rows)


def _mean(found: dict[str, Any] | None, unit: str = "") -> str:
    if not found or not found["values"]:
        return NONE
    mean = f"{100 * found['mean']:.2f}{unit}"
    return mean if found["low"] is None else f"{mean} ± {100 * (found['high'] - found['mean']):.2f}"


def stability(found: dict[str, Any]) -> Table:
    """The barriers at each k."""
    rows = [
        [
            f"{candidate['k']:,}",
            *(_mean(candidate[f"{part}_barrier"]) for part in ("train", "validation", "test")),
            f"{candidate['stable']} of {candidate['replicates']}",
        ]
        for candidate in found["candidates"]
    ]
    head = ["k", "on training examples", "on validation examples", "on the test set", "stable replicates"]
    caption = (
        f"Error barriers in points; at most {100 * found['tolerance']:g} on validation examples counts as stable"
    )
    return Table("stability-table", caption, head, rows)


def costs(summary: dict[str, Any]) -> Table:
    """Which engines trained how much."""
    rows = [
        [engine, f"{did['runs']:,g}", f"{did['seconds']:,.1f}", f"{did['seconds'] / max(did['runs'], 1):.3g}"]
        for engine, did in summary["engines"].items()
    ]
    return Table("engines", "Engines", ["engine", "runs", "seconds", "seconds per run"], rows, frozenset({0}))


def shipped(figures: Sequence[Figures]) -> list[Table]:
    """What was measured of artefacts: their sizes, and their speeds."""
    tables = []
    for name, caption, head, rows in (
        ("shipped-sizes", "Sizes and accuracy", SIZES, sizes(figures)),
        ("shipped-speeds", "Speeds: of one example, and of batches", SPEEDS, speeds(figures)),
    ):
        columns = [column.replace("-\n", "-").replace("\n", " ") for column in head]
        cells = [[cell or NONE for cell in row] for row in rows]
        tables.append(Table(name, caption, columns, cells, frozenset({0})))
    return tables


def versions(found: dict[str, str]) -> Table:
    """What computed it."""
    return Table(
        "versions", "Versions", ["library", "version"], [list(item) for item in found.items()], frozenset({0, 1})
    )


def more_needed(summary: dict[str, Any]) -> str | None:
    """What would decide the first level that cannot be told."""
    first = next((level for level in summary["levels"] if level["verdict"]["state"] == "cannot tell"), None)
    return first and f"Level {first['level']} cannot be told yet. {advice(first['verdict'])}"
