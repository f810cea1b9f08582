from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.errors import raises_input_error
from tests.support.folders import refuse
from tombola.experiments.folders import named_results_folders, results_folders, unreadable


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("b", "a", "sweep/lr=1", "sweep/lr=2", ".hidden/c", "a/shipped/d", "x/y/z/deep"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "experiment.toml").touch()
    (tmp_path / "none" / "experiment.toml").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    return tmp_path


def test_results_folders_are_found_in_order(root: Path) -> None:
    assert results_folders(root) == [root / name for name in ("a", "b", "sweep/lr=1", "sweep/lr=2")]
    assert results_folders(root / "a") == [root / "a"]
    assert not results_folders(root / "nowhere")
    assert not results_folders(root / "a" / "experiment.toml")


def test_links_are_followed_and_what_they_lead_to_counts_once(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    disk = tmp_path_factory.mktemp("disk")
    (disk / "c" / "d").mkdir(parents=True)
    (disk / "c" / "d" / "experiment.toml").touch()
    (root / "a-link").symlink_to(root / "b", target_is_directory=True)
    (root / "itself").symlink_to(root / "itself")
    (root / "gone").symlink_to(root / "nowhere")
    for name in ("one", "two"):
        (root / name).symlink_to(disk / "c", target_is_directory=True)
    names = ("a", "b", "one/d", "sweep/lr=1", "sweep/lr=2")
    assert results_folders(root) == [root / name for name in names]


def test_folders_that_cannot_be_read_may_have_results(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unreadable(root / "x") is None
    assert unreadable(root / "nowhere") is None
    refuse(root / "x" / "y", monkeypatch)
    assert results_folders(root)[-1] == root / "x" / "y"
    assert "Permission denied" in (unreadable(root / "x" / "y") or "")


def test_named_folders_have_results(root: Path) -> None:
    assert named_results_folders([root / "sweep", root / "sweep" / "lr=2", root / "b"]) == [
        root / "sweep" / "lr=1",
        root / "sweep" / "lr=2",
        root / "b",
    ]
    with raises_input_error(root / "none", "experiment.toml"):
        named_results_folders([root / "a", root / "none"])
