"""Whether a launcher, such as torchrun, started this process as one of several that work together."""

from __future__ import annotations

import os

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""By these environment variables torch finds the processes."""


def launched_processes() -> int:
    """How many processes the launcher started, 1 without a launcher."""
    size = os.environ.get("WORLD_SIZE", "")
    return int(size) if size.isdecimal() and all(os.environ.get(name) for name in VARIABLES) else 1


def is_first_process() -> bool:
    """Whether this process is the first of those, or the only one."""
    return launched_processes() <= 1 or os.environ["RANK"] == "0"
