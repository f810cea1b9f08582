from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.custom_search import small, train
from tests.support.experiments import simulate
from tests.support.outcomes import outcome_of
from tests.support.recipes import tiny
from tombola._find_ticket import find_ticket
from tombola.experiments.experiment_log import LOG, ExperimentLog, append_to_log
from tombola.runs.run import Run
from tombola.studies.request import RunRequest

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]+ +\S")
SHORT: dict[str, Any] = {"replicates": 1, "search__levels": 1, "controls": {}}


def lines(folder: Path) -> list[str]:
    return (folder / LOG).read_text(encoding="utf-8").splitlines()


def test_an_experiment_is_logged_a_line_for_each_event(tmp_path: Path) -> None:
    simulate(tiny(**SHORT), tmp_path, progress=False)
    (path,) = tmp_path.rglob(LOG)
    logged = lines(path.parent)
    assert all(LINE.match(line) for line in logged)
    text = "\n".join(logged)
    assert text.count("started: replicate 0, ticket level") == 2
    assert text.count("finished in") == 2
    assert all(
        fact in text for fact in ("command:", "versions:", "torch", "plan:", "2 runs", "level 1,", "2 runs trained")
    )


def test_a_later_command_appends(tmp_path: Path) -> None:
    for replicates in (1, 2):
        simulate(tiny(**SHORT | {"replicates": replicates}), tmp_path, progress=False)
    (path,) = tmp_path.rglob(LOG)
    text = path.read_text()
    assert text.count("plan:") == 2
    assert text.count("taken from the store") == 2
    assert text.count("finished in") == 4


def test_a_search_with_own_functions_is_logged(tmp_path: Path) -> None:
    find_ticket(small, train, levels=1, out=tmp_path / "out", progress=False)
    assert sum("finished in" in line for line in lines(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("error", "expected"), [(ValueError("bad data"), "ERROR"), (KeyboardInterrupt(), "interrupted")]
)
def test_what_stops_an_experiment_is_logged(error: BaseException, expected: str, tmp_path: Path) -> None:
    def fail(_: Any) -> None:
        raise error

    with pytest.raises(type(error)):
        find_ticket(small, fail, levels=1, out=tmp_path / "out", progress=False)
    text = (tmp_path / "out" / LOG).read_text()
    assert expected in text
    assert "in training: replicate 0, ticket level 0" in text
    assert ("Traceback" in text) == isinstance(error, ValueError)


def test_a_failed_training_is_logged_with_its_traceback(dense: Run, tmp_path: Path) -> None:
    def failure() -> Exception:
        try:
            raise RuntimeError("node 7 died")
        except RuntimeError as error:
            return error

    with ExperimentLog() as log:
        log.open(tmp_path)
        log.failed(3, RunRequest("reinit", 2, dense), failure(), True)
    text = (tmp_path / LOG).read_text()
    assert all(fact in text for fact in ("replicate 3, reinit level 2", "tried again", "Traceback", "node 7 died"))


def test_warnings_are_logged_from_the_beginning(tmp_path: Path) -> None:
    with ExperimentLog() as log:
        logging.getLogger("tombola.zoo").warning("before the folder is known")
        log.open(tmp_path)
        logging.getLogger("tombola.zoo").warning("and after")
    logging.getLogger("tombola.zoo").warning("too late")
    assert [line.rpartition("  ")[2] for line in lines(tmp_path)] == [
        line.rpartition("  ")[2] for line in lines(tmp_path) if "before" in line or "after" in line
    ]
    assert len(lines(tmp_path)) == 2


def test_a_request_that_is_repeated_is_logged_once(dense: Run, tmp_path: Path) -> None:
    with ExperimentLog() as log:
        log.open(tmp_path)
        for trained in (True, False):
            log.answered(0, RunRequest("ticket", 0, dense), outcome_of(dense), trained)
    assert len(lines(tmp_path)) == 1


def without_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])


def test_a_program_without_handlers_still_sees_warnings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    without_handlers(monkeypatch)
    with ExperimentLog() as log:
        log.open(tmp_path)
        logging.getLogger("tombola.zoo").warning("look out")
        log.note("an event")
    assert "look out" in capsys.readouterr().err
    append_to_log(tmp_path, "the end")
    assert [line.split()[-1] for line in lines(tmp_path)] == ["out", "event", "end"]
