"""One line for each thing that is examined, whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tombola.report.diagnosis.finding import Finding, examine


@pytest.mark.parametrize("error", [ImportError("no module\nof this name"), SystemExit(2), OSError(13, "denied")])
def test_a_failure_is_a_line(error: BaseException) -> None:
    def look() -> Iterator[Finding]:
        yield Finding("machine", "GPU 0", "fine")
        raise error

    (found,) = examine("machine", "GPU", look)
    assert (found.section, found.name, found.state) == ("machine", "GPU", "warning")
    assert type(error).__name__ in found.text
    assert "\n" not in found.text


def test_the_home_folder_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # Windows
    (found,) = examine(
        "data", "mnist", lambda: [Finding("data", "mnist", f"in {tmp_path}/d", advice=f"{tmp_path}/e")]
    )
    assert (found.text, found.advice) == ("in ~/d", "~/e")
