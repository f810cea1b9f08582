"""Error barriers of tickets, by level, and whether the winning levels are also the connected ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from tombola.experiments.metric import VALIDATION_ACCURACY, Metric
from tombola.stats.error_barriers import BarrierCriteria, interpolation_paths, line_summary
from tombola.stats.summary import LevelSummary, LineSummary, Summary, TicketBarrierSummary
from tombola.studies.request import TicketLine

LINES: tuple[TicketLine, ...] = get_args(TicketLine)


def ticket_barriers(
    points: Sequence[Mapping[str, Any]], count: int, criteria: BarrierCriteria, metric: Metric = VALIDATION_ACCURACY
) -> list[TicketBarrierSummary]:
    """The barriers of each level, from the rows of `stability.parquet`, whose lines have `count` points."""
    paths = {line: interpolation_paths(points, count, line, metric) for line in LINES}
    by_level: dict[int, dict[TicketLine, LineSummary]] = {}
    for line, found in paths.items():
        for level in {path.level for path in found}:
            of_level = [path for path in found if path.level == level]
            by_level.setdefault(level, {})[line] = line_summary(of_level, criteria)
    return [
        TicketBarrierSummary(level=level, predecessor=lines.get("predecessor"), order=lines.get("order"))
        for level, lines in sorted(by_level.items())
    ]


@dataclass(frozen=True)
class JudgedLevel:
    """A level with its barriers on lines of one kind."""

    level: LevelSummary
    barriers: LineSummary
    connected: bool
    """Whether the mean barrier on the validation examples is within the tolerance."""

    @property
    def state(self) -> str:
        """See `verdict_state`."""
        return verdict_state(self.level)


def verdict_state(level: LevelSummary) -> str:
    """The verdict; `too many weights` if the level is not tested."""
    verdict = level.verdict
    return verdict.state if verdict.sparse_enough or verdict.state == "dense" else "too many weights"


def _are_connected(barriers: LineSummary, tolerance: float) -> bool:
    found = barriers.validation_barrier
    finite = len(found.values) == barriers.replicates
    return finite and found.interval is not None and found.interval.mean <= tolerance


def judged_levels(summary: Summary, line: TicketLine) -> list[JudgedLevel]:
    """The levels from which there are lines of this kind, from dense to sparse."""
    if summary.stability is None:
        return []
    levels, found = {level.level: level for level in summary.levels}, []
    for ticket in summary.stability.tickets:
        barriers: LineSummary | None = getattr(ticket, line)
        if barriers is not None and ticket.level in levels:
            connected = _are_connected(barriers, summary.stability.tolerance)
            found.append(JudgedLevel(levels[ticket.level], barriers, connected))
    return found
