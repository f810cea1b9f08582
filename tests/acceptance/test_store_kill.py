"""Copying and pruning that is killed at any moment leaves stores that can be used, and goes on."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.outcomes import outcome_of, random_mask
from tests.support.stores import filled, keys_of
from tombola.experiments.store_pruning import removals, remove
from tombola.experiments.store_usage import store_usage
from tombola.runs.check_outcomes import check_outcomes
from tombola.runs.copy_outcomes import copy_outcomes
from tombola.runs.run import Run
from tombola.runs.store import Store

COPY = """import sys
from pathlib import Path
from tombola.runs.copy_outcomes import copy_outcomes
from tombola.runs.store import Store
copy_outcomes(Store(Path(sys.argv[1])), Store(Path(sys.argv[2])), progress=lambda *done: print(*done, flush=True))
"""
PRUNE = """import sys, time
from pathlib import Path
from tombola.experiments.store_pruning import removals, remove
from tombola.experiments.store_usage import store_usage
from tombola.runs.store import Store
store = Store(Path(sys.argv[1]))
for done in remove(store, removals(store_usage(store, []), time.time(), 0.0)):
    print(done, flush=True)
"""


def kill_after(script: str, lines: int, *arguments: Path) -> None:
    """Kill a process shortly after so many lines of its output."""
    with subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        time.sleep(random.Random(lines).uniform(0, 0.005))
        process.kill()


@pytest.fixture
def runs(dense: Run) -> list[Run]:
    return [dense.masked(random_mask(dense, 0.5, seed)) for seed in range(60)]


def test_a_killed_copy_goes_on(tmp_path: Path, runs: list[Run]) -> None:
    source, target = filled(tmp_path / "a", runs), Store(tmp_path / "b")
    for lines in (5, 20):
        kill_after(COPY, lines, source.folder, target.folder)
        there = keys_of(target)
        assert len(there) >= lines
        assert not check_outcomes(target, sorted(there), lambda done, of: None)  # noqa: ARG005
    report = copy_outcomes(source, target)
    assert report.copied == 60 - len(there)
    assert all(target.get(run) is not None for run in runs)


def test_a_killed_deletion_goes_on_and_what_is_left_can_be_used(tmp_path: Path, runs: list[Run]) -> None:
    store = filled(tmp_path / "a", runs)
    kill_after(PRUNE, 5, store.folder)
    left = keys_of(store)
    assert len(left) <= 55
    assert not check_outcomes(store, sorted(left), lambda done, of: None)  # noqa: ARG005
    with store.claim(runs):  # nothing is claimed any more
        store.put(runs[0], outcome_of(runs[0]))
    assert all(gone for _, gone in remove(store, removals(store_usage(store, []), time.time(), 0.0)))
    assert not keys_of(store)
