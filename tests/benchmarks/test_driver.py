"""The benchmark of the driver, with few workers and runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import driver


def test_results_are_written(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    driver.main(queued=30, workers=4, runs=20, durations=[100.0], calls=1, save=True)
    written = json.loads((results / "driver.json").read_text())
    assert written["queue"]["runs"] == 30
    assert all(milliseconds > 0 for milliseconds in written["milliseconds"].values())
    (use,) = written["use"]
    assert (use["workers"], use["runs"]) == (4, 20)
    assert "20" in capsys.readouterr().out


def test_workers_of_a_fast_driver_are_busy(tmp_path: Path) -> None:
    use = driver.measure_use(workers=10, count=100, seconds=1e6, storing=0.0, folder=tmp_path)
    assert use["use"] == pytest.approx(1, abs=1e-3)
    assert use["hours"] * 3600 == pytest.approx(10 * 1e6, rel=1e-3)


def test_workers_of_a_slow_driver_wait_for_it(tmp_path: Path) -> None:
    """It stores an outcome in 1,000 s, in which one worker of ten trains one run."""
    use = driver.measure_use(workers=10, count=200, seconds=1000.0, storing=1000.0, folder=tmp_path)
    assert use["use"] == pytest.approx(0.1, abs=0.01)


def test_what_the_driver_sends_for_a_run_is_small(tmp_path: Path) -> None:
    """One bit a weight, and no weights."""
    run, store = driver.template(), driver.MemoryStore(tmp_path)
    store.check_writable()
    outcome = driver.outcome_of(run)
    workers = driver.SimulatedWorkers(2, 1.0, lambda run: outcome)  # noqa: ARG005
    driver.conduct([run.reinitialised(seed) for seed in range(5)], store, workers)
    assert workers.sent / 5 < run.mask.size / 8 + 5000
