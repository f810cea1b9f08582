"""Stacks beside one by one, and the projected duration of the first release's experiment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.ceilings import ceilings

from benchmarks import gpu, grid, roofline, stacks
from tombola.engines.stacked.ensemble import EnsembleLearner
from tombola.experiments.recipe import load_recipe
from tombola.runs.run import Run

CPU = torch.device("cpu")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little to copy, few examples."""
    split = stacks.made_up_split(train=300, validation=60)
    monkeypatch.setattr(gpu, "COPIED", 2**20)
    monkeypatch.setattr(stacks, "made_up_split", lambda: split)


@pytest.mark.usefixtures("small")
def test_stacks(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"steps": 6, "turns": 1, "data": None, "data_dir": None, "project": True, "save": True}
    gpu.main(device="cpu", sizes=[2], precisions=None, **settings)
    written = json.loads((results / "stacked-cpu.json").read_text())
    (row,) = written["rows"]
    assert row["ratio"] == pytest.approx(row["stacked"] / row["one_by_one"])
    assert row["ratio_to_plain"] == pytest.approx(row["stacked"] / row["plain"])
    least = roofline.stacked_step("adam", 60, "least").total
    assert row["share_of_bandwidth"] == pytest.approx(row["stacked"] * least / written["bandwidth"])
    assert [row["density"] for row in written["release rows"]] == pytest.approx(gpu.DENSITIES, rel=0.1)
    (minutes,) = written["release"]
    assert minutes["all, minutes"] == pytest.approx(sum(minutes[f"{part}, minutes"] for part in grid.Parts._fields))
    assert "19,220" in capsys.readouterr().out


@pytest.mark.usefixtures("small")
def test_stacks_of_a_data_set(results: Path) -> None:
    settings = {"steps": 5, "turns": 1, "data": "digits", "data_dir": None, "project": False, "save": True}
    gpu.main(device="cpu", sizes=[1], precisions=["fp32", "bf16"], **settings)
    written = json.loads((results / "stacked-cpu.json").read_text())
    assert [row["precision"] for row in written["rows"]] == ["fp32", "bf16"]
    assert "release" not in written


def test_the_widths_of_a_run_are_those_of_its_network() -> None:
    assert gpu.widths(stacks.made_up_run()) == roofline.LENET


def test_a_stack_that_does_not_fit_is_a_row_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = stacks.stacked

    def stacked(runs: list[Run], *rest: Any) -> EnsembleLearner:
        if len(runs) > 1:
            raise torch.cuda.OutOfMemoryError
        return fits(runs, *rest)

    monkeypatch.setattr(stacks, "stacked", stacked)
    run, split = stacks.made_up_run(), stacks.made_up_split(train=100, validation=10)
    small, large = gpu.rows([run], split, [1, 2], CPU, 1e9, steps=5, turns=1)
    assert small["stacked"] > 0
    assert large == {"size": 2, "precision": "fp32", "failed": "out of memory"}
    assert gpu.show([small, large]).row_count == 2


def test_a_stack_that_trains_differently_is_refused(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, split = stacks.made_up_run(), stacks.made_up_split(train=100, validation=10)
    other = stacks.made_up_run(seed=1)
    monkeypatch.setattr(stacks, "stacked", lambda *_: stacks.one_by_one(other, split, CPU))
    (row,) = gpu.rows([run], split, [1], CPU, 1e9, steps=5, turns=1)
    assert "disagree" in row["failed"]
    monkeypatch.setattr(gpu, "COPIED", 2**20)
    monkeypatch.setattr(gpu, "runs_on", lambda *_: ([run], split))
    settings = {"steps": 5, "turns": 1, "data": None, "data_dir": None, "project": False, "save": True}
    with pytest.raises(SystemExit, match="disagree"):
        gpu.main(device="cpu", sizes=[1], precisions=["fp32"], **settings)
    assert not results.exists()


def test_the_trainings_of_the_first_release() -> None:
    trainings = grid.trainings_by_density(load_recipe(grid.RECIPE))
    assert sum(trainings.values()) == 19_220
    assert list(trainings)[:2] == [1.0, pytest.approx((0.8 * 265_200 + 0.9 * 1_000) / 266_200)]
    assert len(trainings) == 31


def test_the_projection_is_the_mean_over_densities() -> None:
    # 620 trainings of 50,000 iterations at each of 31 levels; levels 0 to 13 have more than 5% of the weights
    parts = grid.projected({1.0: 1e5, 0.05: 1e6}, seconds_per_example=1e-9, seconds_per_network=1e-3)
    assert parts.steps == pytest.approx(620 * 50_000 * (14 / 1e5 + 17 / 1e6))
    assert parts.evaluations == pytest.approx(19_220 * (500 * 5_000 + 2 * 65_000) * 1e-9)
    assert parts.building == pytest.approx(19.22)
    assert parts.total == pytest.approx(parts.steps + parts.evaluations + parts.building)


def test_ceilings() -> None:
    rows = ceilings(1, CPU, copied=2**16)
    assert len(rows) == 7
    assert all(row["rate"] > 0 for row in rows)


def test_made_up_examples_can_be_learnt() -> None:
    split = stacks.made_up_split((4, 4), train=50, validation=20)
    assert len(split.train) == 50
    assert len(split.validation) == len(split.test) == 20
    x, y = split.train[torch.arange(50)]
    same, different = (x[0] - x[10]).abs().mean(), (x[0] - x[1]).abs().mean()
    assert y[0] == y[10] != y[1]
    assert same < different
