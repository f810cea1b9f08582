"""Python, required libraries and extras."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tombola.report.diagnosis import software
from tombola.report.diagnosis.finding import Finding


def libraries(monkeypatch: pytest.MonkeyPatch, *wanted: tuple[str, str]) -> dict[str, Finding]:
    """The findings about pairs of extra and requirement."""
    monkeypatch.setattr(software, "requirements", lambda: [(extra, Requirement(text)) for extra, text in wanted])
    return {each.name: each for each in software.libraries(lambda _: None)}


def test_every_required_library_has_its_module() -> None:
    required = [requirement.name for extra, requirement in software.requirements() if not extra]
    assert {"torch", "numpy", "scikit-learn"} <= set(required)
    assert not [name for name in required if importlib.util.find_spec(software.module_name(name)) is None]


def test_extras_are_those_of_the_package() -> None:
    assert {"onnx", "ray", "lightning"} <= {extra for extra, _ in software.requirements()}


def test_a_broken_library_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tomli_w", "pooch"):
        (tmp_path / f"{name}.py").write_text("raise ValueError('binary incompatibility')")
    monkeypatch.syspath_prepend(tmp_path)
    found = libraries(monkeypatch, ("", "tomli-w>=1"), ("tables", "pooch>=1"), ("", "filelock>=3"))
    assert (found["tomli-w"].state, found["pooch"].state) == ("error", "warning")
    assert "ValueError: binary incompatibility" in found["pooch"].text
    assert "'tomli-w>=1'" in found["tomli-w"].advice
    assert "filelock" in found["others"].text


def test_missing_and_old_libraries_come_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found = libraries(monkeypatch, ("", "no-such-library>=1"), ("numbers", "no-such-extra>=1"), ("", "filelock>=999"))
    assert (found["no-such-library"].state, found["no-such-library"].advice) == (
        "error",
        "pip install 'no-such-library>=1'",
    )
    assert (found["no-such-extra"].state, found["no-such-extra"].advice) == ("ok", "pip install 'tombola[numbers]'")
    assert found["filelock"].state == "error"
    assert ">=999" in found["filelock"].text
