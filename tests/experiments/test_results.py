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

from tests.support.errors import raises_input_error
from tests.support.outcomes import outcome_of, random_mask
from tests.support.recipes import tiny
from tests.support.results import writer_of
from tombola.experiments import results_collector
from tombola.experiments.results import read_results
from tombola.experiments.results_collector import InitialStates
from tombola.experiments.results_schema import LEVELS, Tally, read_table
from tombola.pruning.mask import Mask, State
from tombola.runs.outcome import Measures, Outcome
from tombola.runs.run import Run
from tombola.studies.request import RunRequest
from tombola.zoo.models import build
from tombola.zoo.models.description import Start


def made_up_answers(dense: Run) -> list[tuple[int, RunRequest, Outcome]]:
    """(replicate, request, outcome) of two replicates with one level and two draws of a control."""
    answers = []
    for replicate in (0, 1):
        for level in (0, 1):
            for branch, draw in [("ticket", 0), *([("reinit", 0), ("reinit", 1)] if level else [])]:
                run = dense.masked(random_mask(dense, 0.5)) if level else dense
                run = run.reinitialised(100 * replicate + 10 * draw + len(branch))
                answers.append((replicate, RunRequest(branch, level, run, draw), outcome_of(run)))
    return answers


GOLDEN = Path(__file__).parent / "golden" / "digits"


@pytest.fixture
def written(dense: Run, tmp_path: Path) -> Path:
    """A results folder."""
    writer = writer_of(tmp_path / "out", tiny(), "tombola run tiny")
    for replicate, request, outcome in made_up_answers(dense):
        writer.answered(replicate, request, outcome, trained=request.branch == "ticket")
    writer.write(finished=True)
    return tmp_path / "out"


def test_results_of_an_earlier_version_can_be_read_and_resumed(tmp_path: Path) -> None:
    """Golden: its recipe has `verdict.few` and `verdict.beat`, the former names of `max_density` and `control`."""
    results = read_results(GOLDEN)
    assert (results.finished, results.problems, results.tally) == (True, [], Tally(trained=42))
    assert (results.config.verdict.max_density, results.config.verdict.control) == (0.5, "reinit")
    assert (results.config.replicates, results.config.search.levels) == (6, 3)
    assert len(results.rows) == 6 * (1 + 3 * 2)
    levels = pq.read_table(GOLDEN / "levels.parquet").to_pylist()
    assert [row.to_dict() for row in results.rows] == levels
    assert [(cost.level, cost.branch, cost.runs) for cost in results.costs[:2]] == [
        (0, "ticket", 6),
        (1, "reinit", 6),
    ]
    shutil.copytree(GOLDEN, tmp_path / "digits")
    writer_of(tmp_path / "digits", results.config)  # raises if the configurations differed


def test_a_folder_without_a_configuration_is_refused_and_without_tables_has_no_rows(tmp_path: Path) -> None:
    with raises_input_error(tmp_path, "experiment.toml"):
        read_results(tmp_path)
    writer_of(tmp_path / "out", tiny())
    assert read_results(tmp_path / "out").rows == []


STATUSES = {
    '{"runs": {"foo": 1}}': None,
    '{"runs": {"trained": "7"}}': "runs.trained",
    '{"runs": {"trained": -1}}': "runs.trained",
    '{"runs": null}': "runs",
    '{"engines": []}': "engines",
    '{"engines": {"x": {"runs": 1}}}': "engines.x.seconds",
    '{"costs": [1]}': "costs.0",
    '{"costs": [{"level": "1", "branch": "ticket", "runs": 1, "seconds": 1.0}]}': "costs.0.level",
    '{"costs": [{"level": 1, "branch": "ticket", "runs": 1, "seconds": NaN}]}': "costs.0.seconds",
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
def test_a_damaged_status_is_named_and_has_defaults(written: Path, text: str, wrong: str | None) -> None:
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
    writer_of(written, tiny()).write(finished=True)  # the experiment can be resumed
    assert read_results(written).finished


def test_an_unreadable_status_is_named(written: Path) -> None:
    (written / "status.json").unlink()
    assert str(written / "status.json") in read_results(written).problems[0]
    (written / "status.json").mkdir()
    assert "Is a directory" in read_results(written).problems[0]


def test_the_command_is_kept_until_another_is_given(written: Path) -> None:
    assert read_results(written).command == "tombola run tiny"
    writer_of(written, tiny()).write(finished=True)
    assert read_results(written).command == "tombola run tiny"
    writer_of(written, tiny(), "tombola run other").write(finished=True)
    assert read_results(written).command == "tombola run other"


def test_a_status_can_be_read_back(written: Path) -> None:
    results = read_results(written)
    assert results.problems == []
    assert results.finished
    assert results.tally == Tally(trained=4, from_store=4)
    assert results.engines == {"none": {"runs": 8, "seconds": 0.0}}
    assert [(cost.level, cost.branch, cost.runs) for cost in results.costs] == [
        (0, "ticket", 2),
        (1, "reinit", 4),
        (1, "ticket", 2),
    ]
    assert results.inputs == (8, 8)
    assert "torch" in results.versions


@pytest.mark.parametrize(("table", "other"), [*permutations(("levels", "layers", "curves"), 2)])
def test_the_wrong_table_counts_as_damaged(written: Path, table: str, other: str) -> None:
    path = written / f"{table}.parquet"
    shutil.copy(written / f"{other}.parquet", path)
    with raises_input_error(f"{path} is damaged"):
        read_table(written, "curves") if table == "curves" else read_results(written)
    results = read_results(written, lenient=True)
    named = [problem.startswith(f"{path} is damaged: ") for problem in results.problems]
    assert named == [True] * (table != "curves")
    assert (results.rows == []) == (table == "levels")
    assert (results.layers == []) == (table == "layers")


@pytest.mark.parametrize(
    ("column", "value", "facts"),
    [
        *((name, None, [name]) for name in ("replicate", "level", "branch", "draw", "weights", "run")),
        ("weights_total", None, ["weights_total"]),
        ("weights_total", 0, ["1580", "0"]),
        ("weights_total", 10, ["1580", "10"]),
        ("weights", -1, ["-1", "1580"]),
        ("diverged", None, ["diverged"]),
        ("iterations", None, ["iterations"]),
        ("test_accuracy_at_stop", None, ["replicate 0, level 0, ticket"]),
        ("test_accuracy_at_stop", float("nan"), ["test_accuracy_at_stop", "finite"]),
    ],
)
def test_impossible_values_count_as_damage(written: Path, column: str, value: Any, facts: list[str]) -> None:
    path = written / "levels.parquet"
    first, *others = pq.read_table(path).to_pylist()
    pq.write_table(pa.Table.from_pylist([{**first, column: value}, *others], LEVELS), path)
    with raises_input_error(path, *facts):
        read_results(written)
    results = read_results(written, lenient=True)
    assert [str(path) in problem for problem in results.problems] == [True]
    assert results.rows == []
    assert results.layers


def test_damaged_files_are_named(written: Path) -> None:
    path = written / "levels.parquet"
    truncated = path.read_bytes()[:100]
    for table in (pa.table({"replicate": ["a"]}), pa.table({"replicate": [[1]]}), pa.table({"x": [1]})):
        pq.write_table(table, path)
        with raises_input_error("levels.parquet is damaged"):
            read_results(written)
    for content in (truncated, b""):
        path.write_bytes(content)
        with raises_input_error("levels.parquet is damaged"):
            read_results(written)
    (written / "experiment.toml").write_text("name = ")
    with raises_input_error("experiment.toml is not valid TOML"):
        read_results(written)


def test_an_unreadable_configuration_is_named(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with raises_input_error("experiment.toml", "Permission denied"):
        read_results(written)
    with raises_input_error("experiment.toml", "Permission denied"):
        writer_of(written, tiny())


def test_tables_do_not_depend_on_the_order_of_answers(dense: Run, tmp_path: Path) -> None:
    for name, order in (("a", 1), ("b", -1)):
        writer = writer_of(tmp_path / name, tiny())
        for replicate, request, outcome in made_up_answers(dense)[::order]:
            writer.answered(replicate, request, outcome, trained=True)
        writer.write(finished=True)
    for table in ("levels", "layers", "curves"):
        one, other = (tmp_path / name / f"{table}.parquet" for name in ("a", "b"))
        assert one.read_bytes() == other.read_bytes()


def test_tables_can_be_read_without_tombola(written: Path) -> None:
    levels, layers, curves = (
        pq.read_table(written / f"{table}.parquet").to_pylist() for table in ("levels", "layers", "curves")
    )
    assert len(levels) == 2 * (1 + 3)
    assert levels[0]["weights"] == levels[0]["weights_total"] == 1580
    assert len(layers) == 3 * len(levels)
    assert sum(layer["weights"] for layer in layers[:3]) == levels[0]["weights"]
    assert len(curves) == 2 * len(levels)
    assert (curves[0]["iteration"], curves[0]["test_loss"]) == (50, None)
    status = json.loads((written / "status.json").read_text())
    assert status["runs"] == {"trained": 4, "from_store": 4, "diverged": 0}
    results = read_results(written)
    assert (results.config, [row.to_dict() for row in results.rows]) == (tiny(), levels)


def test_diverged_runs_have_no_measures(dense: Run, tmp_path: Path) -> None:
    writer = writer_of(tmp_path / "out", tiny())
    diverged = Outcome(outcome_of(dense).final, {}, Measures(diverged=True, iterations=10), "eager", 1.0)
    writer.answered(0, RunRequest("ticket", 0, dense), diverged, trained=True)
    writer.write(finished=True)
    results = read_results(tmp_path / "out")
    assert results.rows[0].measures == diverged.measures
    assert results.tally.diverged == 1


def test_an_empty_layer_is_reported(dense: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = writer_of(tmp_path / "out", tiny())
    kept = {name: tensor.clone() for name, tensor in dense.mask.items()}
    kept["fc2.weight"] = torch.zeros_like(kept["fc2.weight"])
    run = dense.masked(Mask(kept))
    with caplog.at_level(logging.WARNING):
        writer.answered(1, RunRequest("ticket", 7, run), outcome_of(run), trained=True)
    assert "replicate 1, level 7: layer fc2.weight" in caplog.text
    writer.write(finished=True)
    assert read_results(tmp_path / "out").collapsed == [(1, 7, "fc2.weight")]


def test_an_interrupted_rerun_keeps_complete_tables(dense: Run, tmp_path: Path) -> None:
    writer = writer_of(tmp_path / "out", tiny())
    writer.answered(0, RunRequest("ticket", 0, dense), outcome_of(dense), trained=True)
    writer.interrupted()
    assert not read_results(tmp_path / "out").finished
    writer.write(finished=True)
    again = writer_of(tmp_path / "out", tiny())
    again.interrupted()
    assert len(read_results(tmp_path / "out").rows) == 1
    assert read_results(tmp_path / "out").finished


def test_a_folder_of_another_configuration_is_refused_with_the_differences(tmp_path: Path) -> None:
    writer_of(tmp_path / "out", tiny())
    writer_of(tmp_path / "out", tiny())  # the same configuration is resumed
    with raises_input_error("training.lr is 0.005 there and 0.5 here", "model.dropout is not set there and 0.1 here"):
        writer_of(tmp_path / "out", tiny(training__lr=0.5, model__dropout=0.1))


def test_unsuitable_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with raises_input_error("empty", "--out"):
        writer_of(tmp_path / "full", tiny())
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "out", Path("/proc/nowhere")):
        with raises_input_error("cannot be written"):
            writer_of(folder, tiny())


@pytest.mark.parametrize("among", [1, 2])
def test_initial_states_are_built_once_and_the_oldest_are_dropped(
    dense: Run, monkeypatch: pytest.MonkeyPatch, among: int
) -> None:
    built: list[Start] = []

    def count(start: Start) -> State:
        built.append(start)
        return build(start).state_dict()

    size = sum(tensor.nbytes for tensor in build(dense.start).state_dict().values())
    monkeypatch.setattr(results_collector, "MAX_BYTES", 2 * among * size)
    states = InitialStates(count, among)
    starts = [dense.reinitialised(seed).start for seed in range(3)]
    for start in (starts[0], starts[0], starts[1], starts[0], starts[2], starts[0]):
        states(start)
    assert len(built) == 3
    states(starts[1])  # the least recently used
    assert len(built) == 4


def test_layers_of_runs_that_start_after_others_are_compared_with_their_states(dense: Run, tmp_path: Path) -> None:
    state = {name: tensor + 1 for name, tensor in build(dense.start).state_dict().items()}
    writer = writer_of(tmp_path / "out", tiny(), load_state=lambda key, /, *, optimizer=False: state)  # noqa: ARG005
    run = dense.after(dense.until(10), begin=10)
    outcome = Outcome(state, {}, outcome_of(run).measures, "none", 0.0)
    writer.answered(0, RunRequest("ticket", 0, run), outcome, trained=True)
    writer.write(finished=True)
    assert [layer["distance"] for layer in read_results(tmp_path / "out").layers] == [0.0] * 3
