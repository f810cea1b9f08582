from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from tombola.report import text_cache
from tombola.report.text_cache import UNUSED, cached_text
from tombola.report.vega import svg, vega_embed

CHART = {"mark": "point", "data": {"values": [{"x": 1}]}, "encoding": {"x": {"field": "x", "type": "quantitative"}}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(text_cache.platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    return tmp_path / "tombola"


def test_the_library_is_bundled_and_each_picture_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = svg(CHART), vega_embed()
    monkeypatch.setattr("vl_convert.javascript_bundle", None)
    monkeypatch.setattr("vl_convert.vegalite_to_svg", lambda *_, **__: "another")
    assert (svg(CHART), vega_embed()) == first
    assert svg(CHART | {"mark": "bar"}) == "another"


def test_texts_are_made_where_the_cache_cannot_be_used(cache: Path) -> None:
    assert cached_text("kind", "name", lambda: "one") == "one"
    (cache / "kind" / "name").write_bytes(b"\xff")
    assert cached_text("kind", "name", lambda: "two") == cached_text("kind", "name", lambda: "three") == "two"
    shutil.rmtree(cache)
    cache.write_text("a file in its place")
    assert cached_text("kind", "name", lambda: "four") == "four"


def test_texts_that_are_not_used_are_deleted(cache: Path) -> None:
    for name in ("old", "used"):
        cached_text("kind", name, lambda: "text")
        os.utime(cache / "kind" / name, (time.time() - UNUSED - 60,) * 2)
    cached_text("kind", "used", lambda: "text")
    cached_text("kind", "new", lambda: "text")
    assert {path.name for path in (cache / "kind").iterdir()} == {"new", "used"}
