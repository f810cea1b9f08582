"""Whether modules can be imported, tried in another process: a broken one may raise anything, crash or hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

LIMIT = 60.0
"""Seconds after which a module that is being imported counts as broken."""

_PROGRAM = """
import importlib, json, os, sys, warnings
warnings.simplefilter("ignore")
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # libraries may print
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
        failure = None
    except BaseException as error:
        failure = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    print(json.dumps(failure), file=answers)
os._exit(0)
"""


def trial_imports(
    modules: Sequence[str], notify: Callable[[str], None] = lambda _: None, limit: float = LIMIT
) -> dict[str, str]:
    """Import `modules`, and return the reason in one line for each that cannot be.

    A module that ends its process, or takes longer than `limit` seconds, is one of them; the others are imported in
    another process. `notify` is called with the name of each module before it is imported.
    """
    failures: dict[str, str] = {}
    left = list(modules)
    while left:
        done = 0
        with _importer(left) as process:
            assert process.stdout is not None
            for name in left:
                notify(name)
                timer = threading.Timer(limit, process.kill)
                timer.start()
                answer = process.stdout.readline()
                timer.cancel()
                if not answer:
                    break
                done += 1
                if (failure := json.loads(answer)) is not None:
                    failures[name] = failure
        if done < len(left):
            failures[left[done]] = f"its import ended the process (status {process.returncode})"
            done += 1
        left = left[done:]
    return failures


def _importer(modules: Sequence[str]) -> subprocess.Popen[str]:
    """A process that imports `modules` from the same folders as this one, with a line of JSON for each."""
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *modules],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
