"""`tombola list`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.command_line import run, tombola, with_settings


@pytest.mark.usefixtures("_fake_engine")
def test_experiments_are_listed(tmp_path: Path) -> None:
    assert run(*with_settings("controls.reinit=0")).exit_code == 0
    shutil.copytree(tmp_path / "results" / "tiny", tmp_path / "results" / "sweep" / "lr=[1]")
    (tmp_path / "results" / "bad").mkdir()
    (tmp_path / "results" / "bad" / "experiment.toml").write_text("[")
    shown = tombola("list")
    assert shown.exit_code == 0, shown.stderr
    rows = [line.split() for line in shown.stdout.splitlines()[2:]]
    assert [(row[0], row[1], row[2], row[3]) for row in rows] == [
        ("sweep/lr=[1]", "finished", "3/3", "8/8"),
        ("tiny", "finished", "3/3", "8/8"),
    ]
    assert "results/bad/experiment.toml" in shown.stderr
    document = json.loads(tombola("list", "results", "--json").stdout)
    assert [each["folder"] for each in document["experiments"]] == ["results/sweep/lr=[1]", "results/tiny"]
    assert document["experiments"][1]["runs"] == 8
    (problem,) = document["damaged"]
    assert "results/bad" in problem


def test_a_folder_without_experiments_has_none(tmp_path: Path) -> None:
    assert json.loads(tombola("list", str(tmp_path), "--json").stdout) == {"experiments": [], "damaged": []}
    result = tombola("list")
    assert (result.exit_code, result.stderr) == (2, "error: results is not a folder\n")
