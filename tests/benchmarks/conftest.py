"""Benchmarks write their results to a folder of the test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import common


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)  # noqa: ARG005
    return tmp_path / "results"
