"""Imports that are tried in another process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tombola.utils.trial_imports import trial_imports

MODULES = {
    "sound_module": "print('it may print')",
    "raising_module": "raise RuntimeError('compiled for\\nanother version')",
    "leaving_module": "raise SystemExit(0)",
    "crashing_module": "import os; os._exit(3)",
    "another_module": "",
}


def test_broken_modules_are_told_from_sound_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    noted: list[str] = []
    failures = trial_imports([*MODULES, "missing_module"], noted.append)
    assert noted == [*MODULES, "missing_module"]
    assert set(failures) == {"raising_module", "leaving_module", "crashing_module", "missing_module"}
    assert failures["raising_module"] == "RuntimeError: compiled for another version"
    assert "3" in failures["crashing_module"]
    assert not {*MODULES} & {*sys.modules}


def test_a_module_that_hangs_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hanging_module.py").write_text("import time; time.sleep(600)")
    monkeypatch.syspath_prepend(tmp_path)
    assert set(trial_imports(["hanging_module"], limit=0.1)) == {"hanging_module"}


def test_nothing_is_started_for_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", None)
    assert trial_imports([]) == {}
