"""`tombola store show`, `prune` and `copy`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import run, tombola, with_settings
from tests.support.folders import refuse
from tests.support.stores import damage, entry, keys_of, make_older
from tombola.cli import store as module
from tombola.experiments import store_pruning
from tombola.runs.store import Store

STORE = "results/.tombola"


@pytest.fixture
def store(tmp_path: Path, _fake_engine: None) -> Store:
    """With the outcomes of two experiments, of which 8 are of both: 14 and 10."""
    assert run(*with_settings("controls.reinit=1")).exit_code == 0
    assert run("--out", "results/random", *with_settings("controls.reinit=0", "replicates=3")).exit_code == 0
    return Store(tmp_path / STORE)


def shown(*arguments: str) -> dict[str, Any]:
    result = tombola("store", "show", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_a_store_is_shown_by_experiment(store: Store) -> None:
    document = shown()
    size = sum(entry(store, key).stat().st_size for key in keys_of(store))
    assert (document["store"], document["outcomes"], document["bytes"]) == (STORE, 18, size)
    counts = {each["folder"]: each["outcomes"] for each in document["experiments"]}
    assert counts == {"results/random": 12, "results/tiny": 14}
    assert document["unreferenced"] == {"outcomes": 0, "bytes": 0}
    table = tombola("store", "show", STORE)
    assert "18 outcomes" in table.stdout
    assert "results/random" in table.stdout
    only = shown(STORE, "--results", "results/random")
    assert only["unreferenced"]["outcomes"] == 6


def test_what_is_unfinished_damaged_or_left_over_is_shown(store: Store) -> None:
    (store.folder / "unfinished").mkdir()
    (store.folder / "unfinished" / f"{'0' * 32}.safetensors").write_bytes(b"12345")
    (store.folder / "unfinished" / ".a.safetensors.1.tmp").mkdir()
    make_older(store.folder / "unfinished", 3)
    broken, flipped = sorted(keys_of(store))[:2]
    entry(store, broken).write_bytes(b"")
    damage(entry(store, flipped))
    document = shown("--results", "results/random")
    (checkpoint,) = document["checkpoints"]
    assert (checkpoint["bytes"], checkpoint["age"] // 86400) == (5, 3)
    assert len(document["leftovers"]) == 1
    found = shown("--check")["damaged"]
    assert {Path(each["file"]).stem for each in found} == {broken, flipped}
    assert all(str(store.folder.name) in each["reason"] for each in found)
    table = tombola("store", "show", "--check")
    assert "3 d old" in table.stdout
    assert flipped in table.stdout


def test_pruning_is_asked_for_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree("results/tiny")
    before = keys_of(store)
    young = tombola("store", "prune", "--yes").stdout
    assert "nothing to delete" in young
    assert "6 outcomes" in young
    make_older(store.folder, 2)
    refused = tombola("store", "prune")
    assert refused.exit_code == 2
    assert "--yes" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert keys_of(store) == before
    monkeypatch.setattr(module, "_is_terminal", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda question: not question)
    declined = tombola("store", "prune").stdout
    assert "Nothing was deleted" in declined
    assert "1 experiment looked at" in declined
    assert keys_of(store) == before
    monkeypatch.setattr("typer.confirm", lambda question: "6 files" in question)
    assert "6 files deleted" in tombola("store", "prune").stdout
    assert len(keys_of(store)) == 12
    again = tombola("store", "prune", "--yes").stdout
    assert "nothing to delete" in again
    assert "1 experiment looked at" in again
    assert "all 12 runs" in run("--out", "results/random", *with_settings("controls.reinit=0", "replicates=3")).stdout


def test_options_spare_what_is_young_or_of_a_kind(store: Store) -> None:
    shutil.rmtree("results/tiny")
    before = keys_of(store)
    for spare in (["--older-than", "1d"], ["--keep", "outcomes"], ["--results", "results", "--older-than", "1w"]):
        assert "nothing to delete" in tombola("store", "prune", "--yes", *spare).stdout
    assert keys_of(store) == before
    make_older(store.folder, 2)
    assert "6 files deleted" in tombola("store", "prune", "--yes", "--older-than", "1d").stdout


def test_what_an_experiment_needs_that_starts_meanwhile_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree("results/tiny", "tiny")
    make_older(store.folder, 2)
    shutil.rmtree("results/tiny")
    monkeypatch.setattr(module, "_is_terminal", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda question: bool(question and shutil.move("tiny", "results/tiny")))
    assert "0 files deleted" in tombola("store", "prune").stdout
    assert len(keys_of(store)) == 18


def test_what_is_being_trained_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree("results/tiny")
    make_older(store.folder, 2)
    found = store_pruning.removals
    asked: list[set[str]] = []

    def look(*arguments: Any) -> Any:
        chosen = found(*arguments)
        asked.append({removal.run for removal in chosen})
        return chosen

    monkeypatch.setattr(store_pruning, "removals", look)
    tombola("store", "prune")
    claim = store.claims()
    assert claim.try_add(sorted(asked[0])[:2])
    result = tombola("store", "prune", "--yes")
    assert "4 files deleted" in result.stdout
    assert "2 files of runs that are being trained stayed" in result.stdout
    claim.release()


@pytest.mark.usefixtures("store")
def test_without_results_folders_outcomes_are_not_deleted() -> None:
    Path(STORE).rename("elsewhere")
    result = tombola("store", "prune", "elsewhere", "--yes", "--results", "results")
    assert "nothing to delete" in result.stdout
    Path("away").mkdir()
    Path("elsewhere").rename("away/store")
    result = tombola("store", "prune", "away/store", "--yes")
    assert result.exit_code == 2
    assert "--results" in result.stderr
    assert tombola("store", "prune", "away/store", "--yes", "--keep", "outcomes").exit_code == 0
    assert len(keys_of(Store(Path("away/store")))) == 18


def test_an_unfinished_experiment_is_named_and_keeps_what_it_may_need(store: Store) -> None:
    (Path("results") / "random" / "runs.txt").unlink()
    shutil.rmtree("results/tiny")
    make_older(store.folder, 2)
    result = tombola("store", "prune", "--yes")
    assert "results/random" in result.stderr
    assert len(keys_of(store)) == 18


def test_a_store_that_a_url_names_has_the_experiments_beside_it(store: Store, tmp_path: Path) -> None:
    (tmp_path / "results").rename(tmp_path / "elsewhere")
    (tmp_path / "results").mkdir()
    (tmp_path / "elsewhere" / "random").rename(tmp_path / "results" / "random")
    url = f"file://{tmp_path}/elsewhere/.tombola"
    kept = tombola("store", "prune", url, "--yes", "--older-than", "0d")
    assert "1 experiment looked at" in kept.stdout
    assert len(keys_of(Store(tmp_path / "elsewhere" / ".tombola"))) == 14
    assert not store.exists()


def test_the_experiments_of_a_store_that_is_named_by_dots_are_beside_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store.folder / "runs")
    assert "2 experiments looked at" in tombola("store", "prune", "..", "--yes", "--older-than", "0d").stdout
    assert len(keys_of(store)) == 18


def test_experiments_behind_links_and_in_folders_that_cannot_be_read_keep_theirs(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "results" / "tiny").rename(tmp_path / "disk")
    (tmp_path / "results" / "mine").symlink_to(tmp_path / "disk", target_is_directory=True)
    make_older(store.folder, 2)
    assert "2 experiments looked at" in tombola("store", "prune", "--yes").stdout
    assert len(keys_of(store)) == 18
    assert "mine" in tombola("list").stdout
    (tmp_path / "results" / "mine").unlink()
    (tmp_path / "results" / "mine").mkdir()
    refuse(tmp_path / "results" / "mine", monkeypatch)
    kept = tombola("store", "prune", "--yes")
    assert "results/mine" in kept.stderr
    assert "Permission denied" in kept.stderr
    assert len(keys_of(store)) == 18
    listed = tombola("list")
    assert listed.exit_code == 0
    assert "Permission denied" in listed.stderr


def test_a_folder_with_something_else_does_not_become_a_store(store: Store) -> None:
    refused = tombola("store", "copy", STORE, "results/random")
    assert refused.exit_code == 2
    assert "results/random" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not Path("results/random/runs").exists()
    Path("empty").mkdir()
    Path("begun").mkdir()
    Path("begun/.gitignore").touch()
    for target in ("empty", "begun", "empty"):
        assert tombola("store", "copy", STORE, target).exit_code == 0
    assert keys_of(Store(Path("begun"))) == keys_of(store)


def test_outcomes_are_copied_to_another_store(store: Store) -> None:
    result = tombola("store", "copy", STORE, "copy/.tombola", "--results", "results/random")
    assert result.exit_code == 0, result.stderr
    assert "12 outcomes copied" in result.stdout
    damage(entry(store, sorted(keys_of(store) - keys_of(Store(Path("copy/.tombola"))))[0]))
    result = tombola("store", "copy", STORE, "copy/.tombola")
    assert result.exit_code == 1
    assert "5 outcomes copied" in result.stdout
    assert "12 were there" in result.stdout
    assert "digest" in result.stderr
    settings = with_settings("controls.reinit=0", "replicates=3")
    assert "all 12 runs" in run("--out", "results/random", "--store", "copy/.tombola", *settings).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "nowhere"], "nowhere is not a store"),
        (["show", "job"], "process-0"),
        (["show", STORE, "--results", "job"], "job is not a results folder"),
        (["prune", STORE, "--older-than", "3"], "--older-than"),
        (["prune", STORE, "--keep", "outcome"], '"outcomes"?'),
        (["copy", "nowhere", "other"], "nowhere"),
        (["copy", STORE, "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_invalid_input_has_one_line_and_status_2(store: Store, arguments: list[str], message: str) -> None:
    (store.folder.parents[1] / "job" / "process-0" / "runs").mkdir(parents=True)
    result = tombola("store", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_the_copy_of_a_store_onto_itself_copies_nothing(store: Store) -> None:
    assert "18 were there" in tombola("store", "copy", STORE, STORE).stdout
    assert len(keys_of(store)) == 18
