from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from tests.test_find_ticket import Small, evaluate, train
from tombola._find_ticket import find_ticket
from tombola.report import live as module
from tombola.report.live import NotebookDisplay, Silent, in_notebook, live
from tombola.report.progress import ProgressDisplay
from tombola.stats.level_table import LevelTable


@pytest.fixture
def notebook() -> Iterator[Any]:
    """IPython as it is in a notebook, whose kernel we stand in for."""
    interactive = pytest.importorskip("IPython.core.interactiveshell")
    shell = interactive.InteractiveShell.instance()
    shell.kernel = object()
    yield shell
    interactive.InteractiveShell.clear_instance()


def test_nothing_is_shown_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    assert not in_notebook()
    with live(LevelTable(0.01), 3, None) as listener:
        assert isinstance(listener, Silent)
    find_ticket(Small, train, levels=1)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_progress_on_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with live(LevelTable(0.01), 3, True) as listener:
        assert isinstance(listener, ProgressDisplay)
    shown = io.StringIO()
    monkeypatch.setattr(module, "Console", lambda stderr: Console(file=shown, force_terminal=True, width=80))  # noqa: ARG005
    find_ticket(Small, train, levels=1, progress=None)
    assert "2/2" in shown.getvalue() or "1/2" in shown.getvalue()


def test_a_notebook_gets_the_table_as_it_grows(notebook: Any) -> None:  # noqa: ARG001
    from IPython.utils.capture import capture_output

    assert in_notebook()
    with capture_output() as captured:
        find_ticket(Small, train, evaluate=evaluate, levels=2)
    pages = [output.data["text/html"] for output in captured.outputs]
    assert len(pages) == 1 + 2 * 3 + 1  # at first; when each training begins and when it ends; when all is done
    assert "0 of 3 trainings" in pages[0]
    assert "ticket level 2" in pages[-3]
    assert "of 3 trainings" not in pages[-1]
    assert pages[-1].count("<tr>") == 1 + 3
    assert sum(output.update for output in captured.outputs) == 7  # in its place, not below


def test_it_can_be_silenced_there(notebook: Any) -> None:  # noqa: ARG001
    with live(LevelTable(0.01), 3, False) as listener:
        assert not isinstance(listener, NotebookDisplay)
