"""The benchmark of trainings on a Ray cluster, with few runs and without Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import cluster
from tests.support.recipes import tiny
from tombola.utils.workers import InlineExecutor


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny(training__length="10it", search__levels=1)
    monkeypatch.setattr(cluster, "recipe_of", lambda runs: recipe)  # noqa: ARG005
    monkeypatch.setattr(cluster, "ray_cluster", here)


@contextmanager
def here(address: str, device: str) -> Iterator[Executor]:  # noqa: ARG001
    yield InlineExecutor()


def test_ratios_are_written(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.main(runs=8, turns=1, save=True)
    written = json.loads((results / "cluster.json").read_text())
    assert written["runs"] == 8
    assert written["with start"] >= written["ratio"] > 0
    assert "all tables equal" in capsys.readouterr().out


def test_different_tables_are_no_result(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(10))
    monkeypatch.setattr(cluster, "files", lambda folder: {"levels.parquet": str(next(calls)).encode()})  # noqa: ARG005
    with pytest.raises(SystemExit, match="disagree"):
        cluster.main(runs=8, turns=1, save=True)
    assert not results.exists()


def test_the_recipe_has_as_many_runs_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert cluster.count_runs(cluster.recipe_of(300)) == 300
    assert cluster.count_runs(cluster.recipe_of(301)) == 315
