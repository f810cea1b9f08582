"""Commands run in an empty folder with a tiny recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli_w

from tests.support.fake_engine import FakeEngine
from tests.support.recipes import tiny


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(tomli_w.dumps(tiny(training__length="400it").resolved()))


@pytest.fixture
def _fake_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are not trained."""
    monkeypatch.setattr("tombola._trainers.named_engine", lambda *_: FakeEngine())
