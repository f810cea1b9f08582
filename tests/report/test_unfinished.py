from __future__ import annotations

from pathlib import Path

from tests.support.recipes import tiny
from tests.support.verdict_rows import experiment_rows
from tombola.experiments.live_mark import LiveMark
from tombola.experiments.results import Results
from tombola.experiments.results_schema import Tally
from tombola.report.unfinished import CALL, resume_text, state_text


def results(command: str | None) -> Results:
    rows = experiment_rows([0.95] * 5, [300] * 5)
    return Results(tiny(replicates=5, controls={}), rows, False, Tally(), command=command)


def test_an_interrupted_experiment_says_how_far_it_is_and_how_to_resume(tmp_path: Path) -> None:
    text = state_text(tmp_path, results("tombola run tiny"))
    assert "was interrupted: 10 of 20 runs" in text
    assert "50%" in text
    assert resume_text(tmp_path, results("tombola run tiny"))[1] == "tombola run tiny"
    assert resume_text(tmp_path, results(None))[1] == CALL


def test_a_running_one_says_so(tmp_path: Path) -> None:
    mark = LiveMark(tmp_path)
    assert "is running" in state_text(tmp_path, results("tombola run tiny"))
    mark.remove()
    assert "was interrupted" in state_text(tmp_path, results("tombola run tiny"))
