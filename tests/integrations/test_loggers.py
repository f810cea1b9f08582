from __future__ import annotations

import json
import math
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import pytest
import tomli_w
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner
from wandb.proto import wandb_internal_pb2 as wandb_records

from tests.support.errors import raises_input_error
from tests.support.outcomes import outcome_of
from tests.support.recipes import tiny
from tombola._run_experiment import run_experiment
from tombola.cli import app
from tombola.integrations.loggers import Logging, MLflow, TensorBoard, WeightsAndBiases, logger
from tombola.runs.run import Run
from tombola.studies.request import InterpolationPoint, RunRequest
from tombola.utils import libraries
from tombola.utils.errors import InputError

Points = dict[str, list[tuple[int, float]]]
"""A name -> its points: (step, value)."""

WRITTEN: list[tuple[dict[str, float], int]] = [
    ({"größe/verlust": 1.5, "größe/güte": 0.1}, 0),
    ({"größe/verlust": math.nan, "größe/güte": 0.2}, 100),
    ({"größe/verlust": math.inf}, 200),
    ({"anderes/verlust": 2.5}, 50),  # another name may begin at an earlier iteration
    ({"anderes/verlust": 1.25}, 100),
]
EXPECTED = {
    "größe/verlust": [(0, 1.5), (100, math.nan), (200, math.inf)],
    "größe/güte": [(0, 0.1), (100, 0.2)],
    "anderes/verlust": [(50, 2.5), (100, 1.25)],
}
SHORT = {"replicates": 1, "training__length": "20it", "search__levels": 1, "controls__reinit": 2}


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_DIR": str(tmp_path),
        "MLFLOW_ALLOW_FILE_STORE": "true",  # databases need more than mlflow-skinny
        "MLFLOW_TRACKING_URI": (tmp_path / "mlruns").as_uri(),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    wandb.teardown()  # it remembers the environment of the test before


def in_tensorboard(folder: Path) -> Points:
    found = EventAccumulator(str(folder)).Reload()
    return {name: [(e.step, e.value) for e in found.Scalars(name)] for name in found.Tags()["scalars"]}


def records(folder: Path) -> Iterator[Any]:
    """The records in the file of an offline run: blocks of 32 KiB, a record may have several pieces."""
    wandb.teardown()  # a finished run may not be on disk yet
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    content, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        left = 2**15 - at % 2**15
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        whole = (b"" if kind in (1, 2) else whole) + content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            record = wandb_records.Record()
            record.ParseFromString(whole)
            yield record


def in_wandb(folder: Path) -> Points:
    found: Points = defaultdict(list)
    axes = {}
    for record in records(folder):
        if record.HasField("metric"):
            axes[record.metric.name] = record.metric.step_metric
        if record.HasField("history"):
            row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            for name, value in row.items():
                if axes.get(name):
                    found[name].append((row[axes[name]], float(value)))
    return dict(found)


def in_mlflow(experiment: str = "tombola") -> Points:
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    names = run.data.metrics
    return {name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)] for name in names}


def same(found: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    return sorted_points(found) == sorted_points(expected)


def sorted_points(points: Mapping[str, Any]) -> list[Any]:
    # TensorBoard keeps single precision
    return sorted((name, [(step, f"{value:.6g}") for step, value in values]) for name, values in points.items())


def write(to: Any) -> None:
    for values, step in WRITTEN:
        to.log(values, step)
    to.close()


def test_tensorboard_has_all_points(tmp_path: Path) -> None:
    write(TensorBoard(tmp_path / "läufe"))
    assert same(in_tensorboard(tmp_path / "läufe"), EXPECTED)


def test_tensorboard_has_points_before_it_is_closed(tmp_path: Path) -> None:
    made = TensorBoard(tmp_path)
    made.log({"loss": 1.0}, 3)
    assert in_tensorboard(tmp_path) == {"loss": [(3, 1.0)]}
    made.close()


def test_weights_and_biases_has_all_points_over_the_iteration(tmp_path: Path) -> None:
    write(WeightsAndBiases(project="tombola"))
    assert same(in_wandb(tmp_path), EXPECTED)


def test_a_given_wandb_run_gets_the_points_and_is_not_finished(tmp_path: Path) -> None:
    run = wandb.init(project="mine", config={"lr": 0.1})
    run.log({"my/loss": 1.0})
    write(WeightsAndBiases(run))
    run.log({"my/loss": 0.5})  # possible only in an unfinished run
    assert dict(run.config) == {"lr": 0.1}
    run.finish()
    rows = [
        {"/".join(item.nested_key): item.value_json for item in record.history.item}
        for record in records(tmp_path)
        if record.HasField("history")
    ]
    assert [row["my/loss"] for row in rows if "my/loss" in row] == ["1", "0.5"]
    assert not any("my/loss" in row and "tombola/iteration" in row for row in rows)
    assert same(in_wandb(tmp_path), EXPECTED)


def test_a_new_wandb_run_is_not_the_active_one() -> None:
    run = wandb.init(project="mine")
    ours = WeightsAndBiases(project="tombola")
    ours.close()
    run.log({"my/loss": 0.5})
    assert wandb.run is run
    run.finish()


def test_mlflow_has_all_points() -> None:
    write(MLflow("größe"))
    assert same(in_mlflow("größe"), EXPECTED)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("größe").experiment_id])
    assert run.info.status == "FINISHED"


def test_a_given_mlflow_run_is_not_ended_and_there_is_no_active_one() -> None:
    client = mlflow.MlflowClient()
    mine = client.create_run(client.create_experiment("mine")).info.run_id
    write(MLflow(run_id=mine))
    assert same(in_mlflow("mine"), EXPECTED)
    assert client.get_run(mine).info.status == "RUNNING"
    assert mlflow.active_run() is None


def test_all_runs_of_an_experiment_are_logged_trained_or_from_the_store(tmp_path: Path) -> None:
    recipe = tiny(**SHORT)
    results = run_experiment(recipe, tmp_path / "out", listeners=[Logging(TensorBoard(tmp_path / "first"))])
    found = in_tensorboard(tmp_path / "first")
    losses = found["ticket/level-01/replicate-0/validation_loss"]
    assert [step for step, _ in losses] == [10, 20]
    (row,) = (row for row in results.rows if row.branch == "ticket" and row.level == 1)
    assert found["ticket/level-01/replicate-0/measures/test_accuracy"] == [
        (20, pytest.approx(row.measures["test_accuracy"]))
    ]
    runs = {name.split("/measures/")[0] for name in found if "/measures/" in name}
    assert runs == {
        "ticket/level-00/replicate-0",
        "ticket/level-01/replicate-0",
        "reinit/level-01/replicate-0/draw-0",
        "reinit/level-01/replicate-0/draw-1",
    }
    run_experiment(recipe, tmp_path / "out", listeners=[Logging(TensorBoard(tmp_path / "stored"))])
    assert same(in_tensorboard(tmp_path / "stored"), found)


class ListLogger:
    def __init__(self) -> None:
        self.points: list[tuple[str, int, float]] = []

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.points += [(name, step, value) for name, value in values.items()]

    def close(self) -> None:
        """Nothing to close."""


def test_a_repeated_request_is_logged_once_and_names_are_unique(dense: Run) -> None:
    points = ListLogger()
    listener = Logging(points)
    requests = [
        RunRequest("ticket", 0, dense),
        RunRequest("ticket", 0, dense),
        RunRequest("trunk", 0, dense.until(5)),
        RunRequest("trunk", 0, dense.until(6)),
        RunRequest("stability", 0, dense, 1, InterpolationPoint(10, 0.25)),
        RunRequest("stability", 2, dense, 0, InterpolationPoint(10, 0.25, "predecessor")),
        RunRequest("stability", 2, dense, 0, InterpolationPoint(10, 0.25, "order")),
    ]
    for request in requests:
        listener.started(0, request)
        listener.answered(0, request, outcome_of(request.run), trained=True)
    logged = [name for name, step, _ in points.points if step == 50 and name.endswith("validation_loss")]
    assert logged == [
        "ticket/level-00/replicate-0/validation_loss",
        "trunk/level-00/replicate-0/draw-0/validation_loss",
        f"trunk/level-00/replicate-0/draw-0/run-{requests[3].run.key[:8]}/validation_loss",
        "stability/level-00/replicate-0/draw-1/k-10/share-0.25/validation_loss",
        "stability/level-02/replicate-0/draw-0/predecessor/k-10/share-0.25/validation_loss",
        "stability/level-02/replicate-0/draw-0/order/k-10/share-0.25/validation_loss",
    ]
    assert ("ticket/level-00/replicate-0/measures/diverged", 100, 0.0) in points.points


def test_the_command_line_logs_to_several_loggers(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(tomli_w.dumps(tiny(**SHORT).resolved()))
    arguments = ["run", "tiny.toml", "--workers", "1", "--no-report"]
    for spec in ("tensorboard:logs/für mich", "wandb:mine", "mlflow:mine"):
        arguments += ["--log", spec]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    found = in_tensorboard(tmp_path / "logs" / "für mich")
    assert "reinit/level-01/replicate-0/draw-1/validation_accuracy" in found
    assert same(in_wandb(tmp_path), found)
    assert same(in_mlflow("mine"), found)


def test_loggers_have_default_places(tmp_path: Path) -> None:
    for spec in ("tensorboard", "wandb", "mlflow"):
        with closing(logger(spec)) as made:
            made.log({"loss": 1.0}, 0)
    assert in_tensorboard(tmp_path / "runs") == {"loss": [(0, 1.0)]}
    assert in_mlflow("tombola") == {"loss": [(0, 1.0)]}


@pytest.mark.parametrize(
    ("spec", "fact"),
    [
        ("tensorbord", '"tensorboard"'),
        ("tensorboard:/proc/nowhere", "/proc/nowhere"),
    ],
)
def test_invalid_loggers_are_refused_in_one_line(tmp_path: Path, spec: str, fact: str) -> None:
    (tmp_path / "tiny.toml").write_text(tomli_w.dumps(tiny(**SHORT).resolved()))
    result = CliRunner().invoke(app, ["run", "tiny.toml", "--log", spec])
    assert result.exit_code == 2
    assert fact in result.stderr
    assert result.stderr.count("\n") == 1


def test_places_that_cannot_be_used_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    with pytest.raises(InputError, match="mlflow"):
        MLflow()
    with pytest.raises(InputError, match="wandb"):
        WeightsAndBiases(mode="onlin")


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def absent(module: str) -> Any:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(libraries.importlib, "import_module", absent)
    with raises_input_error(f"pip install 'tombola[{name}]'"):
        logger(name)


def test_a_library_that_cannot_be_imported_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(module: str) -> Any:  # noqa: ARG001
        raise RuntimeError("made for another torch\nsecond line")

    monkeypatch.setattr(libraries.importlib, "import_module", broken)
    with raises_input_error("lightning", "made for another torch"):
        libraries.require("lightning.pytorch", "lightning")


def test_tombola_alone_does_not_import_optional_libraries() -> None:
    names = ["lightning", "pytorch_lightning", "transformers", "tensorboard", "wandb", "mlflow", "accelerate"]
    code = f"import sys, tombola, tombola.cli; print([n for n in {names} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
