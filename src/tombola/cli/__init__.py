"""The command line: a thin layer over the public API."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tombola.cli import (  # noqa: F401 - to register
    doctor,
    experiments,
    listing,
    methods,
    recipes,
    store,
    sweep,
    tickets,
    watch,
)
from tombola.cli.common import app
from tombola.cli.completion import split_at_equals


def main() -> None:
    """The entry point of the `tombola` command."""
    # Each run uses one thread; idle thread pools of several workers would slow each other down.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(Path.cwd()))  # so that networks are found by their import path
    split_at_equals()
    app(prog_name="tombola")
