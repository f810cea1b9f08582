from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from tombola.experiments.planning.plan import Estimate, Plan, PlannedMemory, PlannedRuns, PlannedTime
from tombola.report.plan_text import plan_lines, show_plan


def runs(branch: str, level: int, **changes: Any) -> PlannedRuns:
    facts: dict[str, Any] = {
        "network": "lenet-5",
        "iterations": 400,
        "weights_left": 0.5**level,
        "trainings": 5,
        "in_store": 0,
        "seconds": Estimate(low=10 * 0.5**level, high=10),
    }
    return PlannedRuns(branch=branch, level=level, **facts | changes)


def plan(**changes: Any) -> Plan:
    facts: dict[str, Any] = {
        "name": "small",
        "engine": "sparse",
        "device": "cpu",
        "workers": 2,
        "requests": 20,
        "trainings": 20,
        "in_store": 5,
        "to_train": 15,
        "at_most": None,
        "runs": [
            runs("ticket", 0, in_store=5, seconds=None),
            runs("ticket", 1),
            runs("ticket", 2),
            runs("reinit", 2),
        ],
        "time": PlannedTime(low=50, high=150, basis="store"),
        "disk_bytes": 3_450_000,
        "memory": PlannedMemory(worker=10**8, driver=2 * 10**8, total=4 * 10**8),
    }
    return Plan(**facts | changes)


def shown(of: Plan) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=80)
    show_plan(console, of)
    return [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_a_branch_is_a_line() -> None:
    lines = shown(plan())
    assert ["ticket", "0–2", "100%–25%", "400", "15", "5", "2.5–10", "s"] in lines
    assert ["reinit", "2", "25%", "400", "5", "0", "2.5–10", "s"] in lines


def test_networks_and_evaluations_have_lines_of_their_own() -> None:
    several = [
        runs("ticket", 0),
        runs("stability", 0),
        runs("stability", 0, iterations=0),
        runs("transfer", 0, network="mlp"),
    ]
    lines = shown(plan(runs=several))
    assert [line[:2] for line in lines if line[0] in ("ticket", "stability", "transfer")] == [
        ["ticket", "lenet-5"],
        ["stability", "lenet-5"],
        ["stability", "lenet-5"],
        ["transfer", "mlp"],
    ]


def test_time_disk_and_memory() -> None:
    what, time, disk, memory = plan_lines(plan())
    assert "5 in the store, 15 to train" in what
    assert "50 s–2.5 min" in time
    assert "3.5 MB" in disk or "3.4 MB" in disk
    assert "400.0 MB" in memory


@pytest.mark.parametrize("missing", ["time", "memory"])
def test_what_is_unknown_is_not_made_up(missing: str) -> None:
    lines = plan_lines(plan(**{missing: None}))
    assert not any(line.startswith(f"{missing.capitalize()}: about") for line in lines)


def test_a_maximum_has_its_reason() -> None:
    assert "at most 15 to train (masks agree)" in plan_lines(plan(at_most="masks agree"))[0]


def test_nothing_to_train() -> None:
    (line,) = plan_lines(plan(to_train=0, in_store=20, time=None, memory=None))
    assert "20 runs" in line
