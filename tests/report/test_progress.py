from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.support.custom_search import small, train
from tests.support.experiments import simulate
from tests.support.outcomes import outcome_of
from tests.support.recipes import tiny
from tests.support.several_runs import Clock
from tombola._find_ticket import find_ticket
from tombola._run_experiment import run_experiment
from tombola.experiments.planning.expected_runs import expected_runs
from tombola.experiments.planning.time_left import TimeLeft
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.experiments.results_collector import ResultsCollector
from tombola.report import progress as module
from tombola.report.progress import NotebookDisplay, ProgressDisplay, in_notebook, live_display
from tombola.runs.run import Run
from tombola.studies.request import RunRequest
from tombola.utils.workers import InlineExecutor


def collector() -> ResultsCollector:
    """Of a search that has not begun."""
    return ResultsCollector(tiny(), lambda _: {})


@pytest.fixture
def notebook() -> Iterator[Any]:
    """IPython as in a notebook, with a placeholder for the kernel."""
    interactive = pytest.importorskip("IPython.core.interactiveshell")
    shell = interactive.InteractiveShell.instance()
    shell.kernel = object()
    yield shell
    interactive.InteractiveShell.clear_instance()


def test_without_a_terminal_there_is_a_line_from_time_to_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not in_notebook()
    find_ticket(small, train, levels=1)
    assert capsys.readouterr() == ("", "")  # not within the first minute
    monkeypatch.setattr(module, "LINE_INTERVAL", -1.0)
    find_ticket(small, train, levels=1)
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.partition(" ")[0] for line in err.splitlines()] == ["0/2", "1/2", "1/2", "2/2"]
    find_ticket(small, train, levels=1, progress=False)
    assert capsys.readouterr() == ("", "")


def test_recipes_show_progress_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "LINE_INTERVAL", -1.0)
    recipe = tiny(replicates=1, search__levels=1, controls={})
    simulate(recipe, tmp_path)
    assert "2/2 runs" in capsys.readouterr().err
    simulate(recipe, tmp_path, progress=False)
    assert capsys.readouterr() == ("", "")


def test_growth_is_told_unless_progress_is_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_recipe: dict[str, Any] = {"search__levels": 1, "controls": {}}
    simulate(tiny(replicates=1, **small_recipe), tmp_path)
    assert "Extending" not in capsys.readouterr().err
    simulate(tiny(replicates=2, **small_recipe), tmp_path)
    assert "replicates from 1 to 2" in capsys.readouterr().err
    simulate(tiny(replicates=3, **small_recipe), tmp_path, progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_progress_on_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with live_display(collector(), 3, True) as listener:
        assert isinstance(listener, ProgressDisplay)
    shown = io.StringIO()
    monkeypatch.setattr(module, "LineConsole", lambda stderr: Console(file=shown, force_terminal=True, width=80))  # noqa: ARG005
    find_ticket(small, train, levels=1, progress=None)
    assert "2/2" in shown.getvalue() or "1/2" in shown.getvalue()


def test_a_notebook_gets_a_table_that_is_updated(
    notebook: Any,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from IPython.utils.capture import capture_output

    monkeypatch.setattr(module, "UPDATE_PAUSE", 0)
    assert in_notebook()
    with capture_output() as captured:
        find_ticket(small, train, evaluate=lambda _: 0.5, levels=2)
    pages = [output.data["text/html"] for output in captured.outputs]
    assert len(pages) == 1 + 2 * 3 + 1  # at first; when each training starts and ends; when all have ended
    assert "0 of 3 trainings" in pages[0]
    assert "ticket level 2" in pages[-3]
    assert "of 3 trainings" not in pages[-1]
    assert "3 runs trained, 0 from the store" in pages[-1]
    assert "<progress" in pages[0]
    assert "<progress" not in pages[-1]
    assert all(f"<td>{left}%</td>" in pages[-1] for left in (100, 80))
    assert sum(output.update for output in captured.outputs) == 7  # in place


def test_a_notebook_says_where_the_results_are_and_what_is_added(
    notebook: Any,  # noqa: ARG001
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from IPython.utils.capture import capture_output

    pages = []
    for replicates in (1, 2):
        with capture_output(stdout=False, stderr=False) as captured:
            find_ticket(small, train, levels=1, replicates=replicates, out=tmp_path / "own")
        pages += [output.data["text/html"] for output in captured.outputs]
    assert str(tmp_path / "own") in pages[-1]
    assert "replicates from 1 to 2" in "".join(pages)
    assert "2 runs trained, 2 from the store" in pages[-1]
    assert capsys.readouterr() == ("", "")


def test_a_search_that_fails_does_not_look_finished_in_a_notebook(notebook: Any) -> None:  # noqa: ARG001
    from IPython.utils.capture import capture_output

    with capture_output() as captured, pytest.raises(KeyboardInterrupt), live_display(collector(), 3, None):
        raise KeyboardInterrupt
    last = captured.outputs[-1].data["text/html"]
    assert "0 of 3 trainings" in last
    assert "stopped" in last


def test_progress_in_a_notebook_can_be_turned_off(notebook: Any) -> None:  # noqa: ARG001
    with live_display(collector(), 3, False) as listener:
        assert not isinstance(listener, NotebookDisplay)


def test_the_progress_display_counts_runs_and_names_levels(dense: Run) -> None:
    shown = io.StringIO()
    to = Console(file=shown, width=120, force_terminal=True, color_system=None)
    with ProgressDisplay(to, runs=4) as progress:
        asks = [RunRequest("ticket", 0, dense), RunRequest("reinit", 2, dense.reinitialised(1))]
        for study, ask in enumerate(asks):
            progress.started(study, ask)
        for _ in range(2):  # the first says little of the others
            progress.answered(0, asks[0], outcome_of(dense), trained=True)
        progress._progress.refresh()
        text = shown.getvalue()
    assert "1/4" in text
    assert "reinit level 2" in text
    assert "s left" in text


def test_a_table_that_takes_long_to_show_is_shown_rarely(
    notebook: Any,  # noqa: ARG001
    dense: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, shown = Clock(), []

    def show(self: NotebookDisplay) -> str:
        shown.append(len(self._answered))
        clock.now += 1.0
        return ""

    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(NotebookDisplay, "_repr_html_", show)
    display = NotebookDisplay(collector(), runs=50)
    for seed in range(50):
        run = dense.reinitialised(seed)
        display.answered(0, RunRequest("ticket", 0, run, seed), outcome_of(run), trained=True)
        clock.now += 2.0
    display.close()
    assert shown == [0, 1, 11, 21, 31, 41, 50]


def test_runs_that_train_together_are_counted_by_level(dense: Run) -> None:
    progress = ProgressDisplay(Console(file=io.StringIO()), runs=9)
    asks = [RunRequest("reinit", level, dense.reinitialised(seed)) for seed, level in enumerate([1, 1, 2])]
    for ask in asks:
        progress.started(0, ask)
    assert progress._current() == ["reinit level 1 ×2", "reinit level 2"]
    for ask in asks[1:]:
        progress.answered(0, ask, outcome_of(dense), trained=True)
        progress.answered(1, ask, outcome_of(dense), trained=False)  # shares the run, and did not start it
    assert progress._current() == ["reinit level 1"]


def test_the_time_left_follows_from_what_trainings_of_a_kind_cost(dense: Run) -> None:
    expected = list(expected_runs(RecipeExperiment(tiny(replicates=3, search__levels=0, controls={}))))
    progress = ProgressDisplay(Console(file=io.StringIO()), runs=3)
    progress.expect(TimeLeft(expected), workers=2)
    assert progress._left() == "estimating the time"
    study, first = expected[0]
    progress.started(study, first.request)
    for _ in range(2):  # a study may request a run again
        progress.answered(study, first.request, replace(outcome_of(dense), seconds=600.0), trained=True)
    assert progress._left() == "10 min left"
    progress.expect(TimeLeft(expected), workers=None)  # an executor that does not say; one was training at once
    progress.answered(1, expected[1][1].request, replace(outcome_of(dense), seconds=600.0), trained=True)
    assert progress._left() == "20 min left"


def test_a_trial_before_the_first_training_is_for_those_who_look_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried = []
    monkeypatch.setattr(TimeLeft, "measure", lambda _, engine: tried.append(engine.name))
    recipe = tiny(replicates=1, search__levels=1, controls={}, training__length="10it")
    for terminal, stored in ((False, False), (True, False), (True, True)):
        if not stored:
            shutil.rmtree(tmp_path, ignore_errors=True)
        with ProgressDisplay(Console(file=io.StringIO(), force_terminal=terminal), 2) as progress:
            run_experiment(recipe, tmp_path / "out", engine="eager", progress=False, listeners=[progress], workers=1)
    assert len(tried) == 1


class ThreeNodes(InlineExecutor):
    def nodes(self) -> int:
        return 3


def test_the_progress_display_shows_a_cluster_and_what_it_lost(dense: Run) -> None:
    shown = io.StringIO()
    to = Console(file=shown, width=150, force_terminal=True, color_system=None)
    asks = [RunRequest("ticket", level, dense.reinitialised(level)) for level in range(3)]
    with ProgressDisplay(to, runs=4) as progress:
        progress.watch(ThreeNodes())
        for ask in asks:
            progress.started(0, ask)
        progress._progress.refresh()
        assert "3 nodes, 3 under way ·" in shown.getvalue()
        for ask in asks[:2]:
            progress.failed(0, ask, RuntimeError("node 7 died\nin pain"), True)
        progress.started(0, asks[0])
        progress._progress.refresh()
        last = shown.getvalue()
    assert "3 nodes, 2 under way, 2 lost" in last
    assert "ticket level 0, ticket level 2" in last.splitlines()[-1]
    assert last.count("node 7 died in pain") == 1  # once for each reason


def test_only_so_many_reasons_are_shown(dense: Run) -> None:
    shown = io.StringIO()
    with ProgressDisplay(Console(file=shown, width=150), runs=4) as progress:
        for failure in range(100):
            progress.failed(0, RunRequest("ticket", 0, dense), RuntimeError(f"reason {failure}"), True)
    assert len(shown.getvalue().splitlines()) == module.MAX_ERRORS


def test_an_experiment_shows_the_nodes_of_its_executor(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINE_INTERVAL", -1.0)
    find_ticket(small, train, levels=1, executor=ThreeNodes())
    assert "3 nodes, 1 under way" in capsys.readouterr().err
