"""The command line: a thin layer over the public API."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tombola.cli import experiments, tickets  # noqa: F401 - they register their commands
from tombola.cli.common import app


def main() -> None:
    """The entry point of the `tombola` command."""
    # A training is one thread: workers need no pools of idle threads, which would get in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(Path.cwd()))  # so that a network of one's own is found by its import path
    app()
