"""plan_experiment: what an experiment will train, and what that takes, without a trace."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.support.errors import raises_input_error
from tests.support.experiments import simulate, train
from tests.support.fake_engine import FakeEngine
from tests.support.recipes import tiny
from tombola import plan_experiment
from tombola.experiments.planning import planner, run_costs
from tombola.experiments.planning.plan import Plan
from tombola.experiments.recipe import Recipe, load_recipe
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.utils.errors import InputError
from tombola.utils.workers import InlineExecutor


class Fake(FakeEngine):
    """Needs no earlier outcomes; counts the runs that it is asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def train(self, runs: Sequence[Run], checkpoint: object, load_state: Any = None) -> list[Outcome]:
        self.asked += len(runs)
        return super().train(runs, checkpoint, load_state)


@pytest.fixture
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tombola._plan_experiment.named_engine", lambda *_: Fake())


def plan(recipe: Recipe, store: Path, **options: Any) -> Plan:
    return plan_experiment(recipe, store, **{"workers": 1} | options)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))}


def test_an_experiment_that_has_not_begun(tmp_path: Path) -> None:
    found = plan(tiny(), tmp_path / "store", workers=2)
    assert (found.requests, found.trainings, found.in_store, found.to_train) == (20, 20, 0, 20)
    assert found.at_most is None
    assert [(each.branch, each.level, each.trainings) for each in found.runs] == [
        *(("ticket", level, 2) for level in range(4)),
        *(("reinit", level, 4) for level in range(1, 4)),
    ]
    assert {each.iterations for each in found.runs} == {60}
    assert found.runs[0].weights_left == 1
    assert found.runs[1].weights_left == pytest.approx(0.61, abs=0.01)
    assert found.workers == 2
    assert found.time is not None
    assert found.time.basis == "trial"
    assert 0 < found.time.low < found.time.high
    assert found.memory is not None
    assert found.memory.total > found.memory.worker > 0
    assert list(tmp_path.iterdir()) == []  # nothing was written


@pytest.mark.usefixtures("_fake")
def test_a_run_that_is_requested_twice_is_trained_once(tmp_path: Path) -> None:
    found = plan(tiny(replicates=1, controls={"one_shot": 1}), tmp_path)
    assert (found.requests, found.trainings) == (7, 6)  # pruned once to level 1 is the ticket of level 1


def test_what_is_in_the_store_is_not_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, recorder = train(tiny(replicates=1), tmp_path)
    before = files(tmp_path)
    monkeypatch.setattr(planner, "measure", None)  # the speed is known
    found = plan(tiny(), tmp_path / "store")
    assert (found.in_store, found.to_train) == (len(recorder.trained), 10)
    assert found.time is not None
    assert found.time.basis == "store"
    assert found.time.low > 0
    assert [each.in_store for each in found.runs] == [1] * 4 + [2] * 3
    assert files(tmp_path) == before


@pytest.mark.parametrize("stop_after", [1, 3, 9, 12])
def test_an_interrupted_experiment_goes_on_as_planned(stop_after: int, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        simulate(tiny(), tmp_path, stop_after)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tombola._plan_experiment.named_engine", lambda *_: Fake())
        found = plan(tiny(), tmp_path / "store")
    assert found.in_store == stop_after
    results, _ = simulate(tiny(), tmp_path)
    assert results.tally.trained == found.to_train


def test_nothing_to_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(tiny(), tmp_path)
    engine = Fake()
    monkeypatch.setattr("tombola._plan_experiment.named_engine", lambda *_: engine)
    found = plan(tiny(), tmp_path / "store")
    assert engine.asked == 0
    assert (found.in_store, found.to_train, found.disk_bytes) == (20, 0, 0)
    assert found.time is None
    assert found.memory is None
    assert all(each.seconds is None for each in found.runs)


@pytest.mark.usefixtures("_fake")
def test_a_damaged_entry_is_trained_again_and_left_alone(tmp_path: Path) -> None:
    _, recorder = simulate(tiny(), tmp_path)
    key = recorder.trained[-1].key
    path = tmp_path / "store" / "runs" / key[:2] / f"{key}.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    before = files(tmp_path)
    found = plan(tiny(), tmp_path / "store")
    assert (found.in_store, found.to_train) == (19, 1)
    assert files(tmp_path) == before


def test_speeds_of_other_experiments_in_the_store_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tiny(replicates=1, controls={}), tmp_path)
    monkeypatch.setattr(planner, "measure", None)  # not needed
    found = plan(tiny(training__lr=0.02, controls={}), tmp_path / "store")
    assert found.in_store == 0
    assert found.time is not None
    assert found.time.basis == "store"


def test_those_of_another_engine_or_network_do_not(tmp_path: Path) -> None:
    train(tiny(replicates=1, controls={}), tmp_path, engine="eager")
    for found in (
        plan(tiny(controls={}), tmp_path / "store", engine="sparse"),
        plan(tiny(model__widths=[9, 9], controls={}), tmp_path / "store", engine="eager"),
    ):
        assert found.time is not None
        assert found.time.basis == "trial"


def sizes(folder: Path) -> Iterator[int]:
    return (path.stat().st_size for path in (folder / "store" / "runs").rglob("*.safetensors"))


@pytest.mark.parametrize(
    "changes",
    [
        {"model__widths": [300, 100], "training__length": "20it"},
        {"model": {"name": "lenet-5"}, "training__length": "20it", "search": {"levels": 2, "rate": 0.6}},
        {"training__test_curve": True, "training__evaluate_every": "1it", "model__widths": [100, 50]},
        {
            "model__widths": [300, 100],
            "training__length": "20it",
            "search": {"levels": 1, "rate": 0.9, "method": "gradual"},
            "gradual": {"changes": 3},
        },
    ],
)
def test_the_size_on_disk_is_close(changes: dict[str, Any], tmp_path: Path) -> None:
    recipe = tiny(replicates=1, **{"controls": {"reinit": 1}} | changes)
    planned = plan(recipe, tmp_path / "store").disk_bytes
    train(recipe, tmp_path)
    assert planned == pytest.approx(sum(sizes(tmp_path)), rel=0.05)


def test_a_plan_is_one_json_document(tmp_path: Path) -> None:
    found = plan(tiny(replicates=1), tmp_path / "store")
    assert Plan.model_validate_json(json.dumps(found.model_dump(mode="json"))) == found


@pytest.mark.usefixtures("_fake")
def test_thousands_of_trainings_are_planned_as_they_are_counted(tmp_path: Path) -> None:
    recipe = load_recipe("digits", ["controls.reinit=60"])
    found = plan(recipe, tmp_path / "store")
    assert found.to_train == 20 * (8 + 7 * 60)


def test_invalid_recipes_are_refused_as_by_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batch_size"):
        plan(tiny(training__batch_size=5000), tmp_path)
    with pytest.raises(InputError, match="engine"):
        plan(tiny(), tmp_path, engine="fastest")


def test_where_only_dense_networks_were_trained_sparse_ones_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_costs, "HANDLING", 0.0)  # these are so small that they hardly matter
    train(tiny(search__levels=0, controls={}), tmp_path)
    found = plan(tiny(controls={}), tmp_path / "store")
    assert found.in_store == 2
    assert found.time is not None
    assert found.time.basis == "store and trial"


class Gpus(InlineExecutor):
    """A cluster of three GPUs, each shared by two trainings."""

    device, sharing = "cuda", 2

    def slots(self) -> int:
        return 6


def test_trainings_on_gpus_of_a_cluster_are_counted_but_not_tried_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tombola._plan_experiment.ray_cluster", lambda *_: nullcontext(Gpus()))
    monkeypatch.setattr(planner, "measure", None)
    planned = plan_experiment(tiny(), tmp_path / "store", cluster="auto", resources={"gpu": 0.5})
    assert (planned.workers, planned.device, planned.time) == (6, "cuda", None)
    assert planned.to_train > 0


def test_resources_without_a_cluster_are_refused_as_by_run(tmp_path: Path) -> None:
    with raises_input_error("resources", "cluster"):
        plan_experiment(tiny(), tmp_path / "store", resources=["gpu=99"])
