"""Capacity: how an engine likes to be given its work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Capacity:
    """What an engine says of a run, and of all runs that are shaped like it."""

    together: int = 1
    """How many of them, at most, it trains as one."""
    threads: bool = False
    """It trains them without the interpreter's lock, and without global state: threads of one process will do."""
