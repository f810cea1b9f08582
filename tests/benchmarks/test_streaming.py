"""The benchmark of streamed images, with few of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import streaming


def test_every_side_reads_the_same_pixels(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "BATCH", 8)
    streaming.main(images=24, turns=1)
    written = json.loads((results / "streaming.json").read_text())
    assert set(written["images_per_second"]) == {"DataLoader", "tombola, files", "tombola, Parquet"}
    assert written["limit"] > 0


def test_different_pixels_are_noticed(tmp_path: Path) -> None:
    paths = streaming.generate(tmp_path, 12)
    train = streaming.streamed(tmp_path / "folders")
    streaming.check_pixels(paths, train)
    with pytest.raises(AssertionError, match="different pixels"):
        streaming.check_pixels([paths[0]] * 12, train)
    assert np.isfinite(streaming.decoding_seconds(paths, 2))
