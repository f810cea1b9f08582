from __future__ import annotations

from pathlib import Path

import pytest

from tombola.utils.memory import peak_memory, total_memory


def test_the_peak_is_in_bytes() -> None:
    pytest.importorskip("resource")
    before = peak_memory()
    assert before > 10_000_000  # torch is imported
    block = b"x" * (before + 50_000_000)
    assert peak_memory() > len(block)


def test_the_memory_of_the_machine_or_container_is_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resource")
    limit = tmp_path / "memory.max"
    monkeypatch.setattr("tombola.utils.memory.CONTAINER_LIMIT", limit)
    whole = total_memory()
    assert whole > peak_memory()
    limit.write_text("max\n")
    assert total_memory() == whole
    limit.write_text("1000000\n")
    assert total_memory() == 1_000_000
