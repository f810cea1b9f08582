"""What a search by units, such as channels, leaves of each layer."""

from __future__ import annotations

from statistics import fmean

from tombola.report.document import Table
from tombola.report.figures.figure import Figure, MissingFigure
from tombola.report.figures.layer_figures import units_left
from tombola.report.formatting import NONE, operations, percent
from tombola.report.report_data import ReportData
from tombola.stats.summary import LevelSummary

_NAMES = {"channels": "channels", "neurons": "neurons", "heads": "heads", "width": "entries of the width"}
"""What the units of a structure are called; others are units."""

_COLUMNS = ("outputs", "inputs", "weights", "multiply_adds")

Means = dict[str, float | None]


def unit_paragraphs(data: ReportData) -> list[str]:
    """The multiply-adds before and after; empty unless units are pruned."""
    level = _shown_level(data)
    if level is None or level.multiply_adds is None or not level.multiply_adds_left:
        return []
    dense = operations(level.multiply_adds / level.multiply_adds_left)
    left = f"{operations(level.multiply_adds)} ({percent(level.multiply_adds_left)})"
    how = "“Shipped” has what was measured" if data.export else "“tombola ticket export” does that, and measures it"
    return [
        f"For one example, the layers that can be pruned need {dense} multiply-adds in the dense network. What is "
        f"left at level {level.level} needs {left}, once the rest is removed: {how}."
    ]


def unit_figures(data: ReportData) -> list[Figure | MissingFigure]:
    """The units left in each layer, by level; empty unless units are pruned."""
    return [] if _shown_level(data) is None else [units_left(data, _what(data))]


def unit_tables(data: ReportData) -> list[Table]:
    """Each layer before and after, at the smallest winning level, or else the sparsest; empty unless units are
    pruned."""
    level = _shown_level(data)
    if level is None:
        return []
    before, after, what = _layers(data, 0), _layers(data, level.level), _what(data)
    rows = [[name, *_cells(before[name], found)] for name, found in after.items() if name in before]
    all_before, all_after = _total(before), _total(after)
    head = ["layer", f"{what} of outputs", "left", f"{what} of inputs", "left", "weights left"]
    head += ["multiply-adds", "left"]
    which = "the smallest that wins" if level.verdict.winning else "the sparsest"
    caption = f"{what.capitalize()} before pruning and at level {level.level}, {which}; means over replicates"
    return [Table("units-table", caption, head, [*rows, ["all", *_cells(all_before, all_after)]], frozenset({0}))]


def _shown_level(data: ReportData) -> LevelSummary | None:
    """The smallest winning level, or else the sparsest; None unless units are pruned and there is one."""
    if all(layer["outputs"] is None and layer["inputs"] is None for layer in data.ticket_layers):
        return None
    pruned = [level for level in data.summary.levels if level.level > 0]
    return data.summary.smallest_winning or (pruned[-1] if pruned else None)


def _what(data: ReportData) -> str:
    return _NAMES.get(data.results.config.search.structure, "units")


def _layers(data: ReportData, level: int) -> dict[str, Means]:
    """By layer: the means over tickets."""
    rows = [layer for layer in data.ticket_layers if layer["level"] == level]
    found: dict[str, Means] = {}
    for name in dict.fromkeys(row["layer"] for row in rows):
        values = {key: [row[key] for row in rows if row["layer"] == name] for key in _COLUMNS}
        found[name] = {key: None if None in given else fmean(given) for key, given in values.items()}
    return found


def _total(layers: dict[str, Means]) -> Means:
    """Weights and multiply-adds of all layers."""
    sums: Means = dict.fromkeys(_COLUMNS)
    for key in ("weights", "multiply_adds"):
        values = [layer[key] for layer in layers.values()]
        sums[key] = None if None in values else sum(value for value in values if value is not None)
    return sums


def _cells(before: Means, after: Means) -> list[str]:
    weights, dense = after["weights"], before["weights"]
    return [
        *(_count(side[key]) for key in ("outputs", "inputs") for side in (before, after)),
        percent(weights / dense) if weights is not None and dense else NONE,
        *(NONE if (work := side["multiply_adds"]) is None else operations(work) for side in (before, after)),
    ]


def _count(mean: float | None) -> str:
    """A number of units, with a decimal place if it is not whole."""
    return NONE if mean is None else f"{mean:,.1f}".removesuffix(".0")
