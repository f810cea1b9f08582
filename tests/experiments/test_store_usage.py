"""Which outcomes of a store belong to which experiment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.errors import raises_input_error
from tests.support.experiments import simulate
from tests.support.outcomes import outcome_of
from tests.support.recipes import tiny
from tests.support.stores import entry, filled, keys_of, make_older
from tombola.experiments.run_references import read_references
from tombola.experiments.store_usage import store_usage
from tombola.runs.run import Run
from tombola.runs.store import Store
from tombola.utils.files import write_tensors

TRUNKS: dict[str, Any] = {
    "rewind": {"to": "20it"},
    "stability": {"candidates": ["0it", "10it"], "tickets": True},
}
OTHER_WAYS: list[dict[str, Any]] = [
    {},
    TRUNKS,
    {"rewind": {"to": "20it", "method": "learning-rate"}},
    {"baseline": {"lr": [0.1]}},
    {"transfer": {"data": {"name": "digits", "validation": 100}}},
    {"search": {"method": "edge-popup", "levels": 1, "density": 0.5}, "controls": {}},
    {"search": {"method": "set", "levels": 1, "density": 0.5}, "controls": {}},
]


@pytest.mark.parametrize("changes", OTHER_WAYS)
def test_a_finished_experiment_lists_all_its_runs(tmp_path: Path, changes: dict[str, Any]) -> None:
    simulate(tiny(**changes), tmp_path)
    store, out = Store(tmp_path / "store"), tmp_path / "out"
    usage = store_usage(store, [out])
    assert usage.experiments == {out: keys_of(store)}
    assert not usage.unreferenced
    assert not usage.undecided
    assert read_references(out).complete


def test_what_another_experiment_left_is_nobodys(tmp_path: Path, dense: Run) -> None:
    simulate(tiny(), tmp_path)
    store = Store(tmp_path / "store")
    other = dense.masked(dense.mask).until(30)  # of the same data
    store.put(other, outcome_of(other))
    assert store_usage(store, [tmp_path / "out"]).unreferenced == {other.key}


def test_experiments_share_outcomes(tmp_path: Path) -> None:
    simulate(tiny(), tmp_path)
    (tmp_path / "out").rename(tmp_path / "first")
    simulate(tiny(controls={"random": 1}), tmp_path)
    usage = store_usage(Store(tmp_path / "store"), [tmp_path / "first", tmp_path / "out"])
    first, second = usage.experiments.values()
    assert len(first & second) == 8
    assert first | second == keys_of(Store(tmp_path / "store"))
    assert first - second
    assert second - first


def remove_list(folder: Path) -> None:
    (folder / "runs.txt").unlink()


def reopen(folder: Path) -> None:
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(status | {"finished": False}))


def cut(folder: Path) -> None:
    (folder / "levels.parquet").write_bytes(b"PAR1")


def damage_status(folder: Path) -> None:
    (folder / "status.json").write_text("{")


@pytest.mark.parametrize("harm", [remove_list, reopen, cut, damage_status])
def test_where_it_is_not_certain_all_that_may_be_an_experiments_is(
    tmp_path: Path, dense: Run, harm: Callable[[Path], None]
) -> None:
    simulate(tiny(**TRUNKS), tmp_path)
    store, out = Store(tmp_path / "store"), tmp_path / "out"
    own = keys_of(store)
    foreign = dense.model_copy(update={"data": dense.data.model_copy(update={"digest": "another"})})
    store.put(foreign, outcome_of(foreign))
    for key in keys_of(store):
        make_older(entry(store, key), 1)
    harm(out)
    usage = store_usage(store, [out])
    assert usage.experiments[out] == own
    assert usage.unreferenced == {foreign.key}
    (line,) = usage.undecided
    assert str(out) in line


def test_an_experiment_that_has_written_nothing_yet_may_have_everything(tmp_path: Path, dense: Run) -> None:
    store = filled(tmp_path / "store", [dense])
    make_older(entry(store, dense.key), 100)
    (tmp_path / "out").mkdir()
    usage = store_usage(store, [tmp_path / "out"])
    assert not usage.unreferenced
    assert usage.undecided


def test_what_is_stored_since_an_unfinished_experiment_was_written_may_be_its_own(tmp_path: Path, dense: Run) -> None:
    simulate(tiny(), tmp_path)
    reopen(tmp_path / "out")
    foreign = dense.model_copy(update={"data": dense.data.model_copy(update={"digest": "another"})})
    store = filled(tmp_path / "store", [foreign])
    assert not store_usage(store, [tmp_path / "out"]).unreferenced
    make_older(entry(store, foreign.key), 1)
    assert store_usage(store, [tmp_path / "out"]).unreferenced == {foreign.key}


def test_runs_that_an_unfinished_experiments_runs_start_from_are_its_own(tmp_path: Path, dense: Run) -> None:
    simulate(tiny(), tmp_path)
    reopen(tmp_path / "out")
    foreign = dense.model_copy(update={"data": dense.data.model_copy(update={"digest": "another"})})
    grandparent, parent = foreign.until(5), foreign.until(10).after(foreign.until(5), begin=5, end=10)
    child = dense.after(parent, begin=10)
    store = filled(tmp_path / "store", [grandparent, parent, child])
    make_older(tmp_path / "store", 1)
    usage = store_usage(store, [tmp_path / "out"])
    assert {grandparent.key, parent.key, child.key} <= usage.experiments[tmp_path / "out"]


def test_outcomes_that_do_not_describe_a_run_are_damaged(tmp_path: Path, dense: Run) -> None:
    store = filled(tmp_path / "store", [dense])
    for number, run in enumerate((None, {}, {"data": "digits"}, {"start": 3, "data": {}}, {"start": {}, "data": []})):
        write_tensors(entry(store, f"{number:032}"), {}, {"run": run})
    usage = store_usage(store, [])
    assert usage.unreferenced == {dense.key}
    assert len(usage.damaged) == 5


def test_an_outcome_that_cannot_be_read_is_not_judged(
    tmp_path: Path, dense: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path / "store", [dense])

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("tombola.runs.store.read_about", refuse)
    with raises_input_error(entry(store, dense.key), "Permission denied"):
        store_usage(store, [])


def test_outcomes_whose_header_is_damaged_are_named(tmp_path: Path, dense: Run) -> None:
    store = filled(tmp_path / "store", [dense, dense.until(5)])
    path = entry(store, dense.key)
    path.write_bytes(path.read_bytes()[:-1])
    usage = store_usage(store, [])
    assert usage.damaged.keys() == {dense.key}
    assert usage.unreferenced == {dense.until(5).key}
    assert store_usage(store, [], {dense.until(5).key: "its digest"}).unreferenced == set()
