from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn

from tombola.engines.sparse import speeds as module
from tombola.engines.sparse.modules import SparseTrainingLayer
from tombola.engines.sparse.speeds import Speeds, machine, step_time


def pretend(monkeypatch: pytest.MonkeyPatch, sparse: float, dense: float) -> list[nn.Module]:
    measured: list[nn.Module] = []

    def step_time(layer: nn.Module, inputs: tuple[int, ...]) -> float:  # noqa: ARG001
        measured.append(layer)
        return sparse if isinstance(layer, SparseTrainingLayer) else dense

    monkeypatch.setattr(module, "step_time", step_time)
    return measured


@pytest.mark.parametrize(("sparse", "dense"), [(1.0, 2.0), (2.0, 1.0)])
def test_a_layer_is_sparse_where_that_was_faster(
    sparse: float, dense: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, sparse, dense)
    assert Speeds(tmp_path / "speeds.json").sparse_is_faster(nn.Linear(9, 8), (5, 9), 0.1) == (sparse < dense)


def test_each_layer_shape_batch_and_density_is_measured_once_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, layer = tmp_path / "folder" / "speeds.json", nn.Linear(9, 8)
    measured = pretend(monkeypatch, 1.0, 2.0)
    Speeds(path).sparse_is_faster(layer, (5, 9), 0.1)
    assert len(measured) == 2  # dense and sparse
    Speeds(path).sparse_is_faster(layer, (5, 9), 0.101)  # as good as the same density
    assert len(measured) == 2
    Speeds(path).sparse_is_faster(layer, (5, 9), 0.2)
    assert len(measured) == 3  # the dense one is known
    Speeds(path).sparse_is_faster(layer, (6, 9), 0.2)
    Speeds(path).sparse_is_faster(nn.Linear(9, 8, bias=False), (6, 9), 0.2)
    assert len(measured) == 7
    table = Speeds(path).all()
    assert len(table) == 4
    assert {speed.machine for speed in table} == {machine()}
    assert table[0].density > table[1].density
    assert (table[0].sparse, table[0].dense) == (1.0, 2.0)


def test_a_dense_layer_is_not_even_measured(tmp_path: Path) -> None:
    assert not Speeds(tmp_path / "speeds.json").sparse_is_faster(nn.Linear(9, 8), (5, 9), 1.0)
    assert not (tmp_path / "speeds.json").exists()


def test_an_empty_layer_can_be_measured(tmp_path: Path) -> None:
    Speeds(tmp_path / "speeds.json").sparse_is_faster(nn.Conv2d(1, 1, 3), (5, 1, 4, 4), 0.0)
    assert len(Speeds(tmp_path / "speeds.json").all()) == 1


@pytest.mark.parametrize("content", ["{", "[1]", '{"machine": 3}'])
def test_a_damaged_file_is_measured_anew(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 1.0, 2.0)
    path = tmp_path / "speeds.json"
    path.write_text(content)
    assert Speeds(path).sparse_is_faster(nn.Linear(9, 8), (5, 9), 0.1)
    assert json.loads(path.read_text())


def test_where_nothing_can_be_kept_it_is_measured_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pretend(monkeypatch, 1.0, 2.0)
    (tmp_path / "file").touch()
    assert Speeds(tmp_path / "file" / "speeds.json").sparse_is_faster(nn.Linear(9, 8), (5, 9), 0.1)
    assert "cannot be kept" in caplog.text


def test_a_step_takes_time_and_leaves_no_gradient_on_the_layer_measured() -> None:
    assert step_time(nn.Linear(3, 4), (5, 3)) > 0


def test_the_default_place_can_be_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOMBOLA_SPEEDS", "/somewhere/else.json")
    assert Speeds.default() == Speeds(Path("/somewhere/else.json"))
