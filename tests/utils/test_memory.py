from __future__ import annotations

import pytest

from tombola.utils.memory import peak_memory


def test_the_peak_is_in_bytes() -> None:
    pytest.importorskip("resource")
    before = peak_memory()
    assert before > 10_000_000  # torch is imported
    block = b"x" * (before + 50_000_000)
    assert peak_memory() > len(block)
