from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.errors import raises_input_error
from tombola.experiments.folders import named_results_folders, results_folders


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("b", "a", "sweep/lr=1", "sweep/lr=2", ".hidden/c", "a/shipped/d", "x/y/z/deep"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "experiment.toml").touch()
    (tmp_path / "none" / "experiment.toml").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    return tmp_path


def test_results_folders_are_found_in_order(root: Path) -> None:
    assert [*results_folders(root)] == [root / name for name in ("a", "b", "sweep/lr=1", "sweep/lr=2")]
    assert [*results_folders(root / "a")] == [root / "a"]
    assert not [*results_folders(root / "nowhere")]


def test_named_folders_have_results(root: Path) -> None:
    assert named_results_folders([root / "sweep", root / "sweep" / "lr=2", root / "b"]) == [
        root / "sweep" / "lr=1",
        root / "sweep" / "lr=2",
        root / "b",
    ]
    with raises_input_error(root / "none", "experiment.toml"):
        named_results_folders([root / "a", root / "none"])
