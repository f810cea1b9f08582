from __future__ import annotations

import json
import logging
import shutil
from itertools import permutations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.conftest import outcome_of, random_mask, tiny
from tombola.experiments.results import LEVELS, Tally, read_curves, read_results
from tombola.experiments.results_writer import ResultsWriter
from tombola.pruning.mask import Mask
from tombola.runs.outcome import Measures, Outcome
from tombola.runs.run import Run
from tombola.studies.request import RunRequest
from tombola.utils.errors import InputError


def asks(dense: Run) -> list[tuple[int, RunRequest, Outcome]]:
    made = []
    for replicate in (0, 1):
        for level in (0, 1):
            for branch, draw in [("ticket", 0), *([("reinit", 0), ("reinit", 1)] if level else [])]:
                run = dense.masked(random_mask(dense, 0.5)) if level else dense
                run = run.reinitialised(100 * replicate + 10 * draw + len(branch))
                made.append((replicate, RunRequest(branch, level, run, draw), outcome_of(run)))
    return made


def test_tables_do_not_depend_on_the_order_of_answers(dense: Run, tmp_path: Path) -> None:
    for name, order in (("a", 1), ("b", -1)):
        folder = ResultsWriter(tmp_path / name, tiny())
        for replicate, ask, outcome in asks(dense)[::order]:
            folder.answered(replicate, ask, outcome, trained=True)
        folder.write(finished=True)
    for table in ("levels", "layers", "curves"):
        assert (tmp_path / "a" / f"{table}.parquet").read_bytes() == (
            tmp_path / "b" / f"{table}.parquet"
        ).read_bytes()


def test_tables_are_tidy_and_can_be_read_without_tombola(dense: Run, tmp_path: Path) -> None:
    folder = ResultsWriter(tmp_path / "out", tiny())
    for replicate, ask, outcome in asks(dense):
        folder.answered(replicate, ask, outcome, trained=ask.branch == "ticket")
    folder.write(finished=True)
    levels = pq.read_table(tmp_path / "out" / "levels.parquet").to_pylist()
    assert len(levels) == 2 * (1 + 3)
    assert levels[0]["weights"] == levels[0]["weights_total"] == 1580
    layers = pq.read_table(tmp_path / "out" / "layers.parquet").to_pylist()
    assert len(layers) == 3 * len(levels)
    assert sum(layer["weights"] for layer in layers[:3]) == levels[0]["weights"]
    curves = pq.read_table(tmp_path / "out" / "curves.parquet").to_pylist()
    assert len(curves) == 2 * len(levels)
    assert curves[0]["iteration"] == 50
    assert curves[0]["test_loss"] is None
    assert json.loads((tmp_path / "out" / "status.json").read_text())["runs"] == {
        "trained": 4,
        "from_store": 4,
        "diverged": 0,
    }
    results = read_results(tmp_path / "out")
    assert results.recipe == tiny()
    assert results.rows == folder.rows
    assert results.finished


def test_diverged_runs_have_no_figures(dense: Run, tmp_path: Path) -> None:
    folder = ResultsWriter(tmp_path / "out", tiny())
    diverged = Outcome(outcome_of(dense).final, {}, Measures(diverged=True, iterations=10), "eager", 1.0)
    folder.answered(0, RunRequest("ticket", 0, dense), diverged, trained=True)
    folder.write(finished=True)
    results = read_results(tmp_path / "out")
    assert results.rows[0].measures.diverged
    assert results.rows[0].measures.test_accuracy is None
    assert results.tally.diverged == 1


def test_layer_collapse_is_reported(dense: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = ResultsWriter(tmp_path / "out", tiny())
    kept = {name: tensor.clone() for name, tensor in dense.mask.items()}
    kept["fc2.weight"] = torch.zeros_like(kept["fc2.weight"])
    run = dense.masked(Mask(kept))
    with caplog.at_level(logging.WARNING):
        folder.answered(1, RunRequest("ticket", 7, run), outcome_of(run), trained=True)
    assert "replicate 1, level 7: layer fc2.weight has no weights left" in caplog.text
    folder.write(finished=True)
    assert read_results(tmp_path / "out").collapsed == [(1, 7, "fc2.weight")]


def test_an_interrupted_rerun_leaves_complete_tables_alone(dense: Run, tmp_path: Path) -> None:
    folder = ResultsWriter(tmp_path / "out", tiny())
    folder.answered(0, RunRequest("ticket", 0, dense), outcome_of(dense), trained=True)
    folder.interrupted()
    assert not read_results(tmp_path / "out").finished
    folder.write(finished=True)
    again = ResultsWriter(tmp_path / "out", tiny())
    again.interrupted()
    assert len(read_results(tmp_path / "out").rows) == 1
    assert read_results(tmp_path / "out").finished


def test_a_folder_of_another_configuration_is_refused_with_the_differences(tmp_path: Path) -> None:
    ResultsWriter(tmp_path / "out", tiny())
    ResultsWriter(tmp_path / "out", tiny())  # the same goes on
    with pytest.raises(InputError) as caught:
        ResultsWriter(tmp_path / "out", tiny(training__lr=0.5, model__dropout=0.1))
    assert "training.lr is 0.005 there and 0.5 here" in str(caught.value)
    assert "model.dropout is not set there and 0.1 here" in str(caught.value)


def test_folders_that_are_not_for_results_are_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(InputError, match="not empty and no results folder"):
        ResultsWriter(tmp_path / "full", tiny())
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        ResultsWriter(tmp_path / "file", tiny())
    with pytest.raises(InputError, match="cannot be written"):
        ResultsWriter(tmp_path / "file" / "out", tiny())
    with pytest.raises(InputError, match="cannot be written"):
        ResultsWriter(Path("/proc/nowhere"), tiny())


def test_damaged_results_are_refused_in_one_line(dense: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a results folder"):
        read_results(tmp_path)
    folder = ResultsWriter(tmp_path / "out", tiny())
    assert read_results(tmp_path / "out").rows == []
    folder.answered(0, RunRequest("ticket", 0, dense), outcome_of(dense), trained=True)
    folder.write(finished=True)
    table = tmp_path / "out" / "levels.parquet"
    table.write_bytes(table.read_bytes()[:100])
    with pytest.raises(InputError, match=r"levels\.parquet is damaged"):
        read_results(tmp_path / "out")
    (tmp_path / "out" / "experiment.toml").write_text("name = ")
    with pytest.raises(InputError, match=r"experiment\.toml is damaged"):
        read_results(tmp_path / "out")


@pytest.fixture
def written(dense: Run, tmp_path: Path) -> Path:
    """A results folder."""
    folder = ResultsWriter(tmp_path / "out", tiny(), "tombola run tiny")
    for replicate, ask, outcome in asks(dense):
        folder.answered(replicate, ask, outcome, trained=True)
    folder.write(finished=True)
    return tmp_path / "out"


STATUSES = {
    '{"runs": {"foo": 1}}': None,
    '{"runs": {"trained": "7"}}': "runs.trained",
    '{"runs": {"trained": -1}}': "runs.trained",
    '{"runs": null}': "runs",
    '{"engines": []}': "engines",
    '{"engines": {"x": 1}}': "engines.x",
    '{"engines": {"x": {"runs": 1}}}': "engines.x.seconds",
    '{"costs": [1]}': "costs.0",
    '{"costs": null}': "costs",
    '{"costs": [{"level": "1", "branch": "ticket", "runs": 1, "seconds": 1.0}]}': "costs.0.level",
    '{"costs": [{"level": 1, "branch": "ticket", "runs": 1, "seconds": NaN}]}': "costs.0.seconds",
    '{"inputs": 5}': "inputs",
    '{"inputs": ["a", "b"]}': "inputs.0",
    '{"inputs": [0, 8]}': "inputs.0",
    '{"finished": "yes"}': "finished",
    '{"command": 1}': "command",
    "[]": "",
    "not JSON": "Invalid JSON",
    "": "Invalid JSON",
    "{}": None,
    '{"new": 1}': None,
}


@pytest.mark.parametrize(("text", "wrong"), STATUSES.items())
def test_a_damaged_status_has_its_defaults_and_is_named(written: Path, text: str, wrong: str | None) -> None:
    (written / "status.json").write_text(text)
    results = read_results(written)
    assert len(results.rows) == 8
    assert (results.finished, results.tally, results.engines, results.costs) == (False, Tally(), {}, [])
    assert (results.inputs, results.versions, results.command) == ((), {}, None)
    if wrong is None:
        assert results.problems == []
    else:
        (problem,) = results.problems
        assert problem.startswith(f"{written}/status.json is damaged: {wrong}")
        assert "\n" not in problem
    ResultsWriter(written, tiny()).write(finished=True)  # and it does not stand in the way
    assert read_results(written).finished


def test_a_status_that_cannot_be_read_is_named(written: Path) -> None:
    (written / "status.json").unlink()
    assert read_results(written).problems == [f"{written}/status.json is not there (yet)"]
    (written / "status.json").mkdir()
    assert read_results(written).problems == [f"{written}/status.json cannot be read: Is a directory"]


def test_the_command_is_kept_until_there_is_another(written: Path) -> None:
    assert read_results(written).command == "tombola run tiny"
    ResultsWriter(written, tiny()).write(finished=True)
    assert read_results(written).command == "tombola run tiny"
    ResultsWriter(written, tiny(), "tombola run other").write(finished=True)
    assert read_results(written).command == "tombola run other"


def test_a_status_says_what_was_written(written: Path) -> None:
    results = read_results(written)
    assert results.problems == []
    assert results.finished
    assert results.tally == Tally(trained=8)
    assert results.engines == {"none": {"runs": 8, "seconds": 0.0}}
    assert [(cost.level, cost.branch, cost.runs) for cost in results.costs] == [
        (0, "ticket", 2),
        (1, "reinit", 4),
        (1, "ticket", 2),
    ]
    assert results.inputs == (8, 8)
    assert "torch" in results.versions


@pytest.mark.parametrize(("table", "other"), [*permutations(("levels", "layers", "curves"), 2)])
def test_a_table_in_the_place_of_another_is_damaged(written: Path, table: str, other: str) -> None:
    path = written / f"{table}.parquet"
    shutil.copy(written / f"{other}.parquet", path)
    with pytest.raises(InputError, match=rf"^{path} is damaged: .*; run the experiment again$"):
        read_curves(written) if table == "curves" else read_results(written)
    results = read_results(written, lenient=True)
    named = [problem.startswith(f"{path} is damaged: ") for problem in results.problems]
    assert named == [True] * (table != "curves")
    assert (results.rows == []) == (table == "levels")
    assert (results.layers == []) == (table == "layers")


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        *((name, None, f"{name} is missing") for name in ("replicate", "level", "branch", "draw", "weights", "run")),
        ("weights_total", None, "weights_total is missing"),
        ("weights_total", 0, "1580 of 0 weights"),
        ("weights_total", 10, "1580 of 10 weights"),
        ("weights", -1, "-1 of 1580 weights"),
        ("diverged", None, "diverged is missing"),
        ("iterations", None, "iterations is missing"),
        ("test_accuracy_at_stop", None, "replicate 0, level 0, ticket: a figure is missing"),
        ("test_accuracy_at_stop", float("nan"), "test_accuracy_at_stop: Input should be a finite number"),
    ],
)
def test_impossible_values_are_damage(written: Path, column: str, value: Any, said: str) -> None:
    path = written / "levels.parquet"
    first, *others = pq.read_table(path).to_pylist()
    pq.write_table(pa.Table.from_pylist([{**first, column: value}, *others], LEVELS), path)
    expected = f"{path} is damaged: {said}; run the experiment again"
    with pytest.raises(InputError) as caught:
        read_results(written)
    assert str(caught.value) == expected
    results = read_results(written, lenient=True)
    assert results.problems == [expected]
    assert results.rows == []
    assert results.layers


def test_what_is_no_table_or_of_other_types_is_damaged(written: Path) -> None:
    path = written / "levels.parquet"
    for table in (pa.table({"replicate": ["a"]}), pa.table({"replicate": [[1]]}), pa.table({"x": [1]})):
        pq.write_table(table, path)
        with pytest.raises(InputError, match=r"levels\.parquet is damaged: .*; run the experiment again"):
            read_results(written)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"levels\.parquet is damaged"):
        read_results(written)


def test_a_configuration_that_cannot_be_read_is_refused(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(InputError, match=r"experiment\.toml cannot be read: Permission denied"):
        read_results(written)
    with pytest.raises(InputError, match=r"experiment\.toml cannot be read: Permission denied"):
        ResultsWriter(written, tiny())
