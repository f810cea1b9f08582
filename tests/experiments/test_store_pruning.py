"""What may be deleted from a store, and that nothing else is."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.experiments import simulate
from tests.support.outcomes import outcome_of, random_mask
from tests.support.recipes import tiny
from tests.support.stores import entry, filled, keys_of, make_older
from tombola.experiments import store_pruning
from tombola.experiments.store_pruning import Removal, removals, remove
from tombola.experiments.store_usage import store_usage
from tombola.runs.run import Run
from tombola.runs.store import Store


def chosen(store: Store, *folders: Path, days: float | None = None, keep: tuple[str, ...] = ()) -> list[Removal]:
    age = None if days is None else days * 86400
    return removals(store_usage(store, folders), time.time(), age, keep)


def runs_chosen(found: list[Removal], kind: str = "outcomes") -> set[str | None]:
    return {removal.run for removal in found if removal.kind == kind}


def test_only_what_no_experiment_refers_to_goes(tmp_path: Path, dense: Run) -> None:
    simulate(tiny(), tmp_path)
    store = Store(tmp_path / "store")
    own = keys_of(store)
    others = [dense.until(5), dense.until(6)]
    for other in others:
        store.put(other, outcome_of(other))
    make_older(store.folder, 2)
    found = chosen(store, tmp_path / "out")
    assert runs_chosen(found) == {other.key for other in others}
    assert all(gone for _, gone in remove(store, found))
    assert keys_of(store) == own
    assert not chosen(store, tmp_path / "out")


def test_an_age_spares_what_is_younger_and_what_that_starts_from(tmp_path: Path, dense: Run) -> None:
    trunk = dense.until(5)
    child = dense.after(trunk, begin=5)
    line = dense.between(child, dense, 0.5, 60)
    lonely = dense.until(7)
    store = filled(tmp_path / "store", [trunk, child, dense, line, lonely])
    make_older(store.folder, 40)
    assert runs_chosen(chosen(store, days=30)) == keys_of(store)
    assert not chosen(store, days=50)
    make_older(entry(store, line.key), 1)
    assert runs_chosen(chosen(store, days=30)) == {lonely.key}
    assert runs_chosen(chosen(store, days=0)) == keys_of(store)


def test_what_is_young_may_be_of_an_experiment_elsewhere_that_is_under_way(tmp_path: Path, dense: Run) -> None:
    trunk, lonely = dense.until(5), dense.until(7)
    child = dense.after(trunk, begin=5)
    store = filled(tmp_path / "store", [trunk, child, lonely])
    assert not chosen(store)
    make_older(store.folder, 2)
    make_older(entry(store, child.key), 0.5)
    assert runs_chosen(chosen(store)) == {lonely.key}
    assert runs_chosen(chosen(store, days=0)) == keys_of(store)


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"123")


def test_checkpoints_go_once_their_run_is_finished_or_they_are_old(tmp_path: Path, dense: Run) -> None:
    other = dense.until(5)
    store = filled(tmp_path / "store", [dense])
    finished, unfinished, stack = (store.checkpoint(runs) for runs in ([dense], [other], [other, dense]))
    for path in (finished.path, finished.part(1).path, unfinished.path, stack.path):
        save(path)
    names = {finished.path.name, finished.part(1).path.name}
    assert {Path(removal.file.path).name for removal in chosen(store, keep=("outcomes",))} == names
    make_older(store.folder / "unfinished", 31)
    assert {Path(removal.file.path).name for removal in chosen(store, keep=("outcomes",))} == names
    old = chosen(store, days=30, keep=("outcomes",))
    assert {Path(removal.file.path).name for removal in old} == names | {unfinished.path.name, stack.path.name}
    make_older(store.folder / "unfinished", 0.5)
    young = chosen(store, days=0, keep=("outcomes",))
    assert {Path(removal.file.path).name for removal in young} == names


def test_damaged_outcomes_and_leftovers_go(tmp_path: Path, dense: Run) -> None:
    simulate(tiny(), tmp_path)
    store = Store(tmp_path / "store")
    foreign = dense.until(5)
    store.put(foreign, outcome_of(foreign))
    path = entry(store, foreign.key)
    path.write_bytes(path.read_bytes()[:-1])
    save(store.folder / "damaged" / f"{dense.key}.1.safetensors")
    killed = path.parent / ".a.safetensors.1.tmp"
    save(killed / "a.safetensors")
    found = chosen(store, tmp_path / "out")
    assert [removal.kind for removal in found] == ["damaged", "damaged"]
    make_older(killed, 2)
    found = chosen(store, tmp_path / "out")
    assert [removal.kind for removal in found] == ["damaged", "damaged", "leftovers"]
    assert not chosen(store, tmp_path / "out", keep=("damaged", "leftovers"))
    assert all(gone for _, gone in remove(store, found))
    assert not path.exists()
    assert not killed.exists()
    assert not chosen(store, tmp_path / "out")


def test_nothing_that_is_claimed_is_deleted(tmp_path: Path, dense: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_pruning, "CLAIMED_AT_ONCE", 2)
    runs = [dense.masked(random_mask(dense, 0.5, seed)) for seed in range(5)]
    store = filled(tmp_path / "store", runs)
    save(store.checkpoint(runs[:1]).path)
    with store.claim(runs[:2]):
        done = [*remove(store, chosen(store, days=0))]
    assert keys_of(store) == {run.key for run in runs[:2]}
    assert store.checkpoint(runs[:1]).path.exists()
    assert {removal.run for removal, gone in done if not gone} == {run.key for run in runs[:2]}
    with store.claim(runs):
        pass  # the claims of the deletion are given back


def test_deleting_may_be_interrupted_and_goes_on(tmp_path: Path, dense: Run) -> None:
    runs = [dense.masked(random_mask(dense, 0.5, seed)) for seed in range(5)]
    store = filled(tmp_path / "store", runs)
    deleting = remove(store, chosen(store, days=0))
    next(deleting)
    next(deleting)
    deleting.close()
    assert len(keys_of(store)) == 3
    assert all(gone for _, gone in remove(store, chosen(store, days=0)))
    assert not keys_of(store)
