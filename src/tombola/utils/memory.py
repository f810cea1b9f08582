"""The memory of this process and of the machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Linux's limit for the processes of a container."""


def peak_memory() -> int:
    """The most main memory that this process has used so far, in bytes; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def total_memory() -> int:
    """The main memory of this machine, or of the container in it, in bytes; 0 where the system does not say."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows
        return 0
    try:
        limit = int(CONTAINER_LIMIT.read_text(encoding="ascii"))
    except (OSError, ValueError):  # none, or "max"
        return total
    return min(total, limit)
