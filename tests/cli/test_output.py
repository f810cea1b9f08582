from __future__ import annotations

import logging

import pytest

from tests.support.command_line import run, tombola
from tests.support.fake_engine import FakeEngine
from tombola.cli.output import MessageHandler

pytestmark = pytest.mark.usefixtures("_fake_engine")


def test_the_last_lines_of_a_run_name_each_file_on_its_own_line() -> None:
    *_, results, log = run("--set", "replicates=1").stdout.splitlines()
    assert results.split() == ["results", "results/tiny"]
    assert log.split() == ["log", "results/tiny/log.txt"]


def test_an_interrupted_experiment_is_shown_with_the_command_that_resumes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(FakeEngine, "train", interrupted)
        assert run().exit_code == 130
    shown = tombola("show", "results/tiny").stdout
    assert "was interrupted: 0 of 20 runs" in shown
    assert shown.splitlines()[-1].strip() == "tombola run tiny.toml"


def test_a_logger_says_where_it_writes_and_how_to_look_at_it() -> None:
    pytest.importorskip("tensorboard")
    result = run("--set", "replicates=1", "--log", "tensorboard:my curves")
    assert "  tensorboard --logdir 'my curves'\n" in result.stderr
    assert "tensorboard --logdir 'my curves'" in result.stdout


def test_warnings_are_printed_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    for level in (logging.INFO, logging.WARNING):
        MessageHandler().emit(logging.LogRecord("tombola", level, "", 0, "it %s", ("rains",), None))
    assert capsys.readouterr().err.splitlines() == ["it rains", "warning: it rains"]
