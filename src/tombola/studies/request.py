"""Requests: the training runs that a study requests, and the position of each in the study."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from tombola.runs.run import BaseRun
from tombola.utils.former_names import former_attribute

Result = TypeVar("Result")

TicketLine = Literal["predecessor", "order"]
"""A line from a level's ticket: to the ticket of the previous level, or to itself trained in another batch order."""


@dataclass(frozen=True)
class InterpolationPoint:
    """A network on the straight line between the final weights of two trainings."""

    k: int
    """The number of first iterations that the two trainings share."""
    share: float
    """The position on the line, from 0 to 1."""
    tickets: TicketLine | None = None
    """Which tickets the line joins; None if it joins two trainings of the dense network."""


SECOND_DENSE = "second_dense"
"""The branch of dense networks that the first one is matched with, to permute its mask."""

INTERMEDIATE = ("trunk", "segment", "particle", "interpolated", "scores", SECOND_DENSE)
"""Branches of runs that other runs, or their masks, come from. They have no rows in the tables."""

BASELINE = "baseline"
"""The branch of further trainings of the dense network; `draw` says which it is."""

UNCOMPARED = (BASELINE, "average", "pool", "drawn", "supermask", "untrained", "transfer", "transfer_random")
"""Branches that are no controls: trained with other options, on other data, in part, or not at all."""

RequestId = tuple[str, int, int, InterpolationPoint | None, str]
"""Branch, level, draw, point and the key of the run."""


@dataclass(frozen=True)
class RunRequest:
    """A study's request for the outcome of `run`. The other fields give the position of the run in the study."""

    branch: str
    """`ticket`, the name of a control, `stability`, or one of `INTERMEDIATE` or `UNCOMPARED`."""
    level: int
    """The number of prunings that made the mask; level 0 is the dense network."""
    run: BaseRun
    draw: int = 0
    """The index among several draws of a control, or among several pairs of trainings."""
    point: InterpolationPoint | None = None

    place = former_attribute("place", "request_id")

    @property
    def request_id(self) -> RequestId:
        """Unique within a study. It holds no mask, so it takes little memory."""
        return self.branch, self.level, self.draw, self.point, self.run.key


Study = Generator[RunRequest | list[RunRequest], Any, Result]
"""A study yields a `RunRequest` and is sent its `Outcome`, or yields a list and is sent a list; at the end it returns
a result. Outcomes in a list have no final weights. After pruning by an outcome, a study should drop it before it
requests more runs."""
