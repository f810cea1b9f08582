"""The benchmark of commands that train nothing, with commands that do nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import startup


def test_results_are_written(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(startup, "processor_seconds", lambda arguments: ran.append(arguments[-1]) or 1.0)
    startup.main(rounds=2)
    written = json.loads((results / "startup.json").read_text())["seconds"]
    assert set(written.values()) == {1.0}
    assert len(ran) == 3 * len(written)
    assert written.keys() >= {"import torch", "tombola --help", "tombola run digits, trained before"}


def test_processor_time_of_children_is_counted() -> None:
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    assert startup.processor_seconds(["-c", busy]) >= 0.3
