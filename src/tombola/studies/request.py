"""What a study asks: one training run, and where in the study it stands."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from tombola.runs.run import BaseRun

Result = TypeVar("Result")


@dataclass(frozen=True)
class Point:
    """Where on the straight line between the ends of two trainings a network is evaluated."""

    k: int
    """The trainings share their first k iterations."""
    share: float
    """How far along the line, from 0 to 1."""


INTERMEDIATE = ("trunk", "segment", "edge_popup")
"""Branches of trainings on the way to others. They are no rows of the tables."""


UNCOMPARED = ("drawn", "supermask", "untrained", "transfer", "transfer_random")
"""Branches that are shown and that tickets are not compared with: they were trained on other data, in part or not at
all."""


Position = tuple[str, int, int, Point | None, str]
"""Branch, level, draw, point, and the run's key."""


@dataclass(frozen=True)
class RunRequest:
    """A study's question: what comes of this run? The rest says where in the study it stands."""

    branch: str
    """`ticket`, the name of a control, or what else the study needs: `stability`, one of `INTERMEDIATE` or of
    `UNCOMPARED`."""
    level: int
    """How many prunings made the mask; level 0 is the dense network."""
    run: BaseRun
    draw: int = 0
    """Which of several draws of a control, or of several lines."""
    point: Point | None = None
    """Of `stability`."""

    @property
    def place(self) -> Position:
        """What tells it from all others of its study. It holds no mask, so it can be kept."""
        return self.branch, self.level, self.draw, self.point, self.run.key


Study = Generator[RunRequest | list[RunRequest], Any, Result]
"""Sent an `Outcome` for each `RunRequest`, a list of them for a list, and returns a result. Outcomes in a list come
without the weights that training ended with."""
