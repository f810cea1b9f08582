from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tombola.utils import checkouts
from tombola.utils.checkouts import DIRTY, commit_of


def git(folder: Path, *command: str) -> str:
    named = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    return subprocess.run(("git", *named, *command), cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_the_commit_of_a_checkout_and_whether_it_was_changed(tmp_path: Path) -> None:
    assert commit_of(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert commit_of(tmp_path) is None  # it has no commit
    (tmp_path / "train.py").write_text("one")
    git(tmp_path, "add", "train.py")
    git(tmp_path, "commit", "-q", "-m", "First")
    commit = git(tmp_path, "rev-parse", "HEAD")[:12]
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "untracked").write_text("")
    assert commit_of(tmp_path / "results") == commit
    (tmp_path / "train.py").write_text("two")
    assert commit_of(tmp_path) == commit + DIRTY


def test_without_git_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(tmp_path) is None
    assert commit_of(tmp_path / "missing") is None


def test_a_package_that_its_checkout_does_not_track_has_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "tombola" / "utils" / "checkouts.py"
    monkeypatch.setattr(checkouts, "__file__", str(installed))
    installed.parent.mkdir(parents=True)
    checkouts.own_commit.cache_clear()
    try:
        assert checkouts.own_commit() is None
    finally:
        checkouts.own_commit.cache_clear()
