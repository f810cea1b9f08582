"""`tombola doctor`."""

from __future__ import annotations

import json
import sys

import pytest
from packaging.requirements import Requirement

from tests.support.command_line import tombola
from tombola.report.diagnosis.finding import Finding

WARNING = Finding("folders", "cache", "~/c cannot be written: " + "x" * 70, "warning", "name another folder")
ERROR = Finding("software", "numba", "not installed", "error", "pip install 'numba>=0.61'")


def _pretend(monkeypatch: pytest.MonkeyPatch, *found: Finding) -> None:
    monkeypatch.setattr("tombola.report.diagnosis.diagnose", lambda *_: list(found))


@pytest.mark.parametrize(("found", "status"), [([], 0), ([WARNING], 0), ([WARNING, ERROR], 1)])
def test_errors_are_in_the_exit_status(found: list[Finding], status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, *found)
    for arguments in (["doctor"], ["doctor", "--json"]):
        assert tombola(*arguments).exit_code == status


def test_every_finding_is_shown_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, WARNING, ERROR)
    shown = tombola("doctor").stdout
    together = "".join(shown.split())
    for each in (WARNING, ERROR):
        for text in (each.name, each.text, each.state, each.advice):
            assert "".join(text.split()) in together
    assert "1 error, 1 warning" in shown


def test_the_document_has_every_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, WARNING, ERROR)
    document = json.loads(tombola("doctor", "--json").stdout)
    assert document["counts"] == {"ok": 0, "warning": 1, "error": 1}
    assert document["findings"] == [WARNING.to_dict(), ERROR.to_dict()]


@pytest.mark.parametrize("torch_is_broken", [False, True])
def test_this_installation_is_examined(torch_is_broken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [("", Requirement("filelock>=3"))]
    monkeypatch.setattr("tombola.report.diagnosis.software.requirements", lambda: wanted)
    if torch_is_broken:
        monkeypatch.setitem(sys.modules, "torch", None)
    result = tombola("doctor", "--json")
    assert result.exit_code == 0, result.stderr
    findings = json.loads(result.stdout)["findings"]
    names = {each["name"] for each in findings}
    assert {"tombola", "Python", "platform", "cache", "store", "digits", "mnist"} <= names
    broken = {each["name"] for each in findings if "could not be examined" in each["text"]}
    assert broken == ({"torch", "GPU"} if torch_is_broken else set())
