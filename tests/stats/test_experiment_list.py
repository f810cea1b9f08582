"""The experiments under a folder, in a few words."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.errors import raises_input_error
from tests.support.experiments import simulate
from tests.support.recipes import tiny
from tombola.experiments.live_mark import LiveMark
from tombola.stats.experiment_list import ListedExperiment, list_experiments
from tombola.utils.errors import InputError

WINNING = {"margin": 0.99, "max_density": 0.99, "stop_margin": 99.0, "confidence": 0.8}


def listed(folder: Path) -> list[ListedExperiment]:
    found = [*list_experiments(folder)]
    assert all(isinstance(each, ListedExperiment) for each in found)
    return [each for each in found if isinstance(each, ListedExperiment)]


def test_a_finished_experiment_has_its_progress_and_verdict(tmp_path: Path) -> None:
    simulate(tiny(replicates=3, verdict=WINNING, training__length="400it", controls={"reinit": 1}), tmp_path)
    (found,) = listed(tmp_path)
    files = [*(tmp_path / "out").iterdir()]
    assert found.model_dump() == {
        "folder": str(tmp_path / "out"),
        "name": "tiny",
        "state": "finished",
        "levels": 3,
        "expected_levels": 3,
        "runs": 21,
        "expected_runs": 21,
        "verdict": "winning",
        "weights_left": pytest.approx(371 / 1580),
        "written": max(path.stat().st_mtime for path in files),
        "bytes": sum(path.stat().st_size for path in files),
        "problems": [],
    }


@pytest.mark.parametrize(
    ("verdict", "word"), [({"max_density": 0.001}, "not winning"), ({"confidence": 0.999}, "cannot tell")]
)
def test_the_verdict_is_a_word(tmp_path: Path, verdict: dict[str, float], word: str) -> None:
    simulate(tiny(verdict=verdict, training__length="400it"), tmp_path)
    (found,) = listed(tmp_path / "out")
    assert (found.verdict, found.weights_left) == (word, None)


def test_runs_without_rows_are_counted(tmp_path: Path) -> None:
    simulate(tiny(rewind={"to": "20it"}, stability={"candidates": ["10it"]}), tmp_path)
    (found,) = listed(tmp_path)
    assert found.runs == found.expected_runs > 20


def test_an_unfinished_experiment_is_interrupted_or_under_way(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        simulate(tiny(), tmp_path, stop_after=5)
    (found,) = listed(tmp_path)
    assert (found.state, found.runs, found.verdict) == ("interrupted", 5, "cannot tell")
    assert (found.levels, found.expected_levels) == (1, 3)
    mark = LiveMark(tmp_path / "out")
    assert [each.state for each in listed(tmp_path)] == ["under way"]
    mark.remove()


def test_a_damaged_folder_is_told_from_the_others(tmp_path: Path) -> None:
    simulate(tiny(controls={}), tmp_path)
    for name in ("a", "b", "c", "d"):
        shutil.copytree(tmp_path / "out", tmp_path / name)
    (tmp_path / "a" / "experiment.toml").write_text("name = ")
    (tmp_path / "b" / "levels.parquet").write_bytes(b"PAR1")
    (tmp_path / "c" / "status.json").unlink()
    for name in ("levels", "layers", "curves"):
        (tmp_path / "d" / f"{name}.parquet").unlink()
    damaged, levels, status, empty, whole = list_experiments(tmp_path)
    assert isinstance(damaged, InputError)
    assert str(tmp_path / "a" / "experiment.toml") in str(damaged)
    for each, problems in ((levels, 1), (status, 1), (empty, 0), (whole, 0)):
        assert isinstance(each, ListedExperiment)
        assert len(each.problems) == problems
    assert isinstance(status, ListedExperiment)
    assert status.state == "interrupted"


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with raises_input_error(tmp_path / "nowhere"):
        [*list_experiments(tmp_path / "nowhere")]
    assert not listed(tmp_path)
