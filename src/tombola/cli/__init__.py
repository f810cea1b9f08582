"""The command line: a thin layer over the public API."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import NoReturn

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
from tombola.cli.output import print_error
from tombola.utils.launcher import is_first_process, launched_processes

TRAINING_COMMANDS = (["run"], ["sweep"], ["methods"], ["ticket", "check"])
"""The commands that several processes started by torchrun perform together."""


def main() -> None:
    """The entry point of the `tombola` command."""
    # Each run uses one thread; idle thread pools of several workers would slow each other down.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(Path.cwd()))  # so that networks are found by their import path
    split_at_equals()
    if launched_processes() > 1 and any(sys.argv[1 : 1 + len(names)] == names for names in TRAINING_COMMANDS):
        _run_in_one_job()
    app(prog_name="tombola")


def _run_in_one_job() -> NoReturn:
    """Run the command in the first process; the others take part in its trainings, and exit with its status."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # every process would print hints on the arguments of DDP
    from tombola.engines.distributed.job import in_one_job
    from tombola.utils.errors import Unreachable
    from tombola.utils.text import first_line

    first = is_first_process()
    try:
        in_one_job(lambda: app(prog_name="tombola"))
    except Unreachable as error:
        if first:  # the others print nothing
            print_error(f"failed: {error}")
    except SystemExit as end:
        if end.code and not first:  # a launcher ends all processes when one fails: first the first one
            time.sleep(1)
        raise
    except Exception as error:
        if first:
            raise
        print_error(f"failed: process {os.environ['RANK']}: {first_line(error)}")
        time.sleep(1)
    sys.exit(1)
