from __future__ import annotations

import json
import logging
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from tests.conftest import outcome_of, random_mask, tiny
from tombola.errors import InputError
from tombola.mask import Mask
from tombola.outcome import Measures, Outcome
from tombola.results import ResultsFolder, read_results
from tombola.run import Run
from tombola.studies import Ask


def asks(dense: Run) -> list[tuple[int, Ask, Outcome]]:
    made = []
    for replicate in (0, 1):
        for level in (0, 1):
            for branch, draw in [("ticket", 0), *([("reinit", 0), ("reinit", 1)] if level else [])]:
                run = dense.masked(random_mask(dense, 0.5)) if level else dense
                run = run.reinitialised(100 * replicate + 10 * draw + len(branch))
                made.append((replicate, Ask(branch, level, run, draw), outcome_of(run)))
    return made


def test_tables_do_not_depend_on_the_order_of_answers(dense: Run, tmp_path: Path) -> None:
    for name, order in (("a", 1), ("b", -1)):
        folder = ResultsFolder(tmp_path / name, tiny())
        for replicate, ask, outcome in asks(dense)[::order]:
            folder.answered(replicate, ask, outcome, trained=True)
        folder.write(finished=True)
    for table in ("levels", "layers", "curves"):
        assert (tmp_path / "a" / f"{table}.parquet").read_bytes() == (
            tmp_path / "b" / f"{table}.parquet"
        ).read_bytes()


def test_tables_are_tidy_and_can_be_read_without_tombola(dense: Run, tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path / "out", tiny())
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
    folder = ResultsFolder(tmp_path / "out", tiny())
    diverged = Outcome(outcome_of(dense).final, {}, Measures(diverged=True, iterations=10), "eager", 1.0)
    folder.answered(0, Ask("ticket", 0, dense), diverged, trained=True)
    folder.write(finished=True)
    results = read_results(tmp_path / "out")
    assert results.rows[0].measures.diverged
    assert results.rows[0].measures.test_accuracy is None
    assert results.tally.diverged == 1


def test_layer_collapse_is_reported(dense: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = ResultsFolder(tmp_path / "out", tiny())
    kept = {name: tensor.clone() for name, tensor in dense.mask.items()}
    kept["fc2.weight"] = torch.zeros_like(kept["fc2.weight"])
    run = dense.masked(Mask(kept))
    with caplog.at_level(logging.WARNING):
        folder.answered(1, Ask("ticket", 7, run), outcome_of(run), trained=True)
    assert "replicate 1, level 7: layer fc2.weight has no weights left" in caplog.text
    folder.write(finished=True)
    assert read_results(tmp_path / "out").collapsed == [(1, 7, "fc2.weight")]


def test_an_interrupted_rerun_leaves_complete_tables_alone(dense: Run, tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path / "out", tiny())
    folder.answered(0, Ask("ticket", 0, dense), outcome_of(dense), trained=True)
    folder.interrupted()
    assert not read_results(tmp_path / "out").finished
    folder.write(finished=True)
    again = ResultsFolder(tmp_path / "out", tiny())
    again.interrupted()
    assert len(read_results(tmp_path / "out").rows) == 1
    assert read_results(tmp_path / "out").finished


def test_a_folder_of_another_configuration_is_refused_with_the_differences(tmp_path: Path) -> None:
    ResultsFolder(tmp_path / "out", tiny())
    ResultsFolder(tmp_path / "out", tiny())  # the same goes on
    with pytest.raises(InputError) as caught:
        ResultsFolder(tmp_path / "out", tiny(training__lr=0.5, model__dropout=0.1))
    assert "training.lr is 0.005 there and 0.5 here" in str(caught.value)
    assert "model.dropout is not set there and 0.1 here" in str(caught.value)


def test_folders_that_are_not_for_results_are_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(InputError, match="not empty and no results folder"):
        ResultsFolder(tmp_path / "full", tiny())
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        ResultsFolder(tmp_path / "file", tiny())
    with pytest.raises(InputError, match="cannot be written"):
        ResultsFolder(tmp_path / "file" / "out", tiny())
    with pytest.raises(InputError, match="cannot be written"):
        ResultsFolder(Path("/proc/nowhere"), tiny())


def test_damaged_results_are_refused_in_one_line(dense: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a results folder"):
        read_results(tmp_path)
    folder = ResultsFolder(tmp_path / "out", tiny())
    assert read_results(tmp_path / "out").rows == []
    folder.answered(0, Ask("ticket", 0, dense), outcome_of(dense), trained=True)
    folder.write(finished=True)
    table = tmp_path / "out" / "levels.parquet"
    table.write_bytes(table.read_bytes()[:100])
    with pytest.raises(InputError, match=r"levels\.parquet is damaged"):
        read_results(tmp_path / "out")
    (tmp_path / "out" / "experiment.toml").write_text("name = ")
    with pytest.raises(InputError, match=r"experiment\.toml is damaged"):
        read_results(tmp_path / "out")
