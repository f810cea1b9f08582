"""A store in a bucket of a real S3 server, through a proxy that counts requests and breaks them."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from pyarrow import fs

from tests.support.command_line import tombola
from tests.support.conducting import RecordingEngine, request_together, runs_like
from tests.support.experiments import Recorder, simulate
from tests.support.outcomes import outcome_of, random_mask
from tests.support.recipes import tiny
from tests.support.s3_server import BUCKET, CREDENTIALS, Proxy, entry_of, move_to, objects
from tests.support.stores import filled, keys_of
from tests.support.training import same_bits
from tombola._run_experiment import run_experiment
from tombola.runs import bucket_store, store_url
from tombola.runs.bucket_store import BucketStore
from tombola.runs.checkpoint import Checkpoint
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.runs.store import Store
from tombola.runs.store_contents import contents_of
from tombola.runs.store_url import connect
from tombola.studies.conductor import conduct
from tombola.studies.local_training import train_missing
from tombola.studies.remote_training import RemoteTraining
from tombola.utils.workers import InlineExecutor


def folders(store: BucketStore) -> set[str]:
    """Also those of which there are only markers, which pyarrow leaves where it deletes the last object."""
    url = store.bucket.url
    found = connect(url).get_file_info(fs.FileSelector(url.path(""), recursive=True))
    return {info.path.removeprefix(f"{url.path('')}/") for info in found if info.type == fs.FileType.Directory}


def test_an_outcome_is_read_on_another_machine_as_it_was_written(
    dense: Run, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = dense.masked(random_mask(dense, 0.3))
    store, outcome = BucketStore.at(url), outcome_of(run)
    store.check_writable()
    assert store.get(run) is None
    store.put(run, outcome)
    move_to(tmp_path / "second", monkeypatch)
    other = BucketStore.at(url)
    assert other.folder != store.folder
    found = other.get(run)
    assert found is not None
    assert same_bits(found, outcome)
    assert other.get(dense) is None
    assert other.load_state(run.key).keys() == outcome.final.keys()
    with pytest.raises(LookupError, match=re.escape(f"s3://{BUCKET}")):
        other.load_state(dense.key)
    assert objects(store) == ["id", entry_of(run)]
    assert objects(store, "runs") == [entry_of(run)]


def test_requests_are_few(
    dense: Run, url: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BucketStore.at(url)
    store.get(dense)
    assert store.peek(dense.reinitialised(1)) is None
    assert store.get(dense.reinitialised(2)) is None
    assert proxy.taken() == ["GET"]  # a listing
    assert store.get(dense, fresh=True) is None
    assert proxy.taken() == ["HEAD"]
    store.put(dense, outcome_of(dense))
    assert proxy.taken() == ["PUT"]
    assert store.get(dense) is not None
    assert proxy.taken() == []
    move_to(tmp_path / "second", monkeypatch)
    other = BucketStore.at(url)
    assert other.get(dense) is not None
    assert proxy.taken() == ["GET", "HEAD", "GET"]
    claim = other.claims()
    assert claim.try_add([run.key for run in runs_like(dense, 30)])
    assert proxy.taken() == ["PUT", "GET"]
    claim.release()
    assert len(proxy.taken()) <= 3


@pytest.mark.parametrize("harm", ["truncate", "flip", "other run"])
def test_a_damaged_object_is_set_aside_and_trained_again(
    dense: Run, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    store, other = BucketStore.at(url), dense.reinitialised(1)
    store.put(dense, outcome_of(dense))
    store.put(other, outcome_of(other))
    content = store.bucket.get(entry_of(dense if harm != "other run" else other))
    assert content is not None
    harmed = {"truncate": content[:-10], "flip": content[:-1] + bytes([content[-1] ^ 1])}.get(harm, content)
    store.bucket.put(entry_of(dense), harmed)
    move_to(tmp_path / "second", monkeypatch)
    store = BucketStore.at(url)
    with caplog.at_level(logging.WARNING):
        assert store.get(dense) is None
    assert f"s3://{BUCKET}/{tmp_path.name}/{entry_of(dense)}" in caplog.text
    (aside,) = objects(store, "damaged")
    assert store.bucket.get(aside) == harmed
    with pytest.raises(LookupError, match=dense.key):
        store.load_state(dense.key)
    assert train_missing([dense, other], store, RecordingEngine(2)) == [True, False]
    assert store.get(dense) is not None


def test_an_object_that_is_still_empty_is_missing(dense: Run, url: str) -> None:
    store = BucketStore.at(url)
    store.bucket.put(entry_of(dense), b"")  # Azure creates it so, before it is complete
    assert store.get(dense) is None
    assert objects(store) == [entry_of(dense)]


def test_a_store_in_a_bucket_is_pickled_by_its_url_alone(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BucketStore.at(url, 7.0)
    assert store.store_id is None
    store.check_writable()
    pickled = pickle.dumps(store)
    assert not any(secret.encode() in pickled for secret in CREDENTIALS.values())
    move_to(tmp_path / "second", monkeypatch)
    other = pickle.loads(pickled)
    assert (other.place, other.checkpoint_every) == (store.place, 7.0)
    assert other.folder != store.folder
    assert other.store_id == store.store_id is not None
    other.check_writable()
    assert other.store_id == store.store_id
    assert BucketStore.at(url.replace(tmp_path.name, "elsewhere")).store_id is None


def test_a_checkpoint_goes_on_on_another_machine_and_is_cleared_by_the_driver(
    dense: Run, url: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_run = dense.reinitialised(1)
    driver, worker = BucketStore.at(url), BucketStore.at(url, 0.0)
    checkpoint, neighbour = worker.checkpoint([dense]), worker.checkpoint([other_run])
    for saved in (checkpoint, checkpoint.part(0), checkpoint.part(0).part(1), neighbour):
        saved.save({"a": torch.ones(2)}, {"iteration": 3}, "eager")
        saved.wait()
    move_to(tmp_path / "second", monkeypatch)
    resumed = BucketStore.at(url).checkpoint([dense])
    for part in (resumed, resumed.part(0), resumed.part(0).part(1)):
        loaded = part.load("eager")
        assert loaded is not None
        assert loaded[1] == {"iteration": 3}
    assert resumed.part(1).load("eager") is None
    driver.checkpoint([dense]).clear()
    assert len(objects(driver, "unfinished")) == 1
    assert len([name for name in folders(driver) if name.startswith("unfinished/")]) == 1
    assert BucketStore.at(url).checkpoint([other_run]).load("eager") is not None
    proxy.taken()
    driver.checkpoint([dense.reinitialised(2)]).clear()
    assert proxy.taken() == ["GET"]


def test_a_look_after_a_claim_finds_what_others_have_stored_since(
    dense: Run, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, runs = BucketStore.at(url), runs_like(dense, 2)
    assert store.get(runs[0]) is None
    move_to(tmp_path / "second", monkeypatch)
    for run in runs:
        BucketStore.at(url).put(run, outcome_of(run))
    engine = RecordingEngine(2)
    assert train_missing(runs, store, engine) == [False, False]
    move_to(tmp_path / "third", monkeypatch)
    store = BucketStore.at(url.replace(tmp_path.name, f"{tmp_path.name}/other"))
    assert store.get(runs[0]) is None
    move_to(tmp_path / "fourth", monkeypatch)
    BucketStore.at(store.bucket.url).put(runs[0], outcome_of(runs[0]))
    training = RemoteTraining(store, engine, InlineExecutor())
    assert training.submit(runs[:1]).result() == {}
    training.close()


def test_an_id_is_not_trusted_for_ever(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = BucketStore.at(url)
    store.check_writable()
    assert store.store_id is not None
    store.bucket.put("id", b"another")
    monkeypatch.setattr(bucket_store, "SAME_ID", 1e-6)
    assert store.store_id == "another"


def test_a_checkpoint_that_cannot_be_uploaded_does_not_end_the_training(
    dense: Run, url: str, proxy: Proxy, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_url, "ATTEMPTS", 1)
    checkpoint: Checkpoint = BucketStore.at(url, 0.0).checkpoint([dense])
    proxy.always = "503"
    checkpoint.save({"a": torch.ones(2)}, {"iteration": 3}, "eager")
    checkpoint.wait()
    assert f"s3://{BUCKET}" in caplog.text
    checkpoint.due()  # raises nothing
    proxy.always = "pass"
    assert checkpoint.load("eager") is not None  # from this machine


def test_two_drivers_at_once_train_each_run_and_get_equal_outcomes(
    dense: Run, url: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.delay, runs, stores = 0.02, runs_like(dense, 6), []
    for machine in ("a", "b"):
        move_to(tmp_path / machine, monkeypatch)
        stores.append(BucketStore.at(url))
    engines = [RecordingEngine(2), RecordingEngine(2)]
    met = threading.Barrier(2)

    def drive(store: BucketStore, engine: RecordingEngine) -> list[list[Outcome]]:
        met.wait()
        return conduct([request_together(*runs)], store, engine, InlineExecutor(), Recorder())

    with ThreadPoolExecutor(2) as executor:
        futures = [executor.submit(drive, *pair) for pair in zip(stores, engines, strict=True)]
        (first,), (second,) = (future.result(timeout=60) for future in futures)
    assert all(map(same_bits, first, second))
    assert {run.key for engine in engines for run in engine.trained} == {run.key for run in runs}
    assert objects(stores[0], "claims") == []
    assert folders(stores[0]) <= {"claims", "runs"} | {f"runs/{run.key[:2]}" for run in runs}


TABLES = ("levels.parquet", "layers.parquet", "curves.parquet", "experiment.toml")


def test_an_experiment_killed_and_gone_on_with_gives_the_same_tables_as_with_a_folder(
    tmp_path: Path, proxy: Proxy, url: str
) -> None:
    recipe = tiny(search__levels=2, controls={"reinit": 1})
    run_experiment(recipe, tmp_path / "local", store=tmp_path / "store", engine="eager", workers=1, progress=False)
    command = [sys.executable, "-c", EXPERIMENT, str(tmp_path / "out"), url, recipe.model_dump_json()]
    cache = {"XDG_CACHE_HOME": str(tmp_path / "killed")}
    with subprocess.Popen(command, env=os.environ | cache) as process:
        while sum("PUT" in request and "/runs/" in request for request in proxy.requests) < 4:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    results = run_experiment(recipe, tmp_path / "out", store=url, engine="eager", workers=1, progress=False)
    assert results.tally.from_store >= 3
    assert results.tally.trained > 0
    for name in TABLES:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


def test_what_is_in_a_bucket_is_deleted_only_where_its_experiments_are_named(
    dense: Run, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    simulate(tiny(), tmp_path / "results")  # of another store
    place, own = BucketStore.at(url), runs_like(dense, 2)
    place.check_writable()
    for run in own:
        place.put(run, outcome_of(run))
    refused = tombola("store", "prune", url, "--yes", "--older-than", "0d")
    assert refused.exit_code == 2
    assert "--results" in refused.stderr
    assert tombola("store", "prune", url, "--yes", "--older-than", "0d", "--keep", "outcomes").exit_code == 0
    assert contents_of(place).outcomes.keys() == {run.key for run in own}
    assert tombola("store", "prune", url, "--yes", "--older-than", "0d", "--results", "results").exit_code == 0
    assert not contents_of(place).outcomes


EXPERIMENT = """import sys
from tombola import run_experiment
from tombola.experiments.recipe import Recipe
recipe = Recipe.model_validate_json(sys.argv[3])
where = {"store": sys.argv[2], "engine": "eager", "workers": 1}
run_experiment(recipe, sys.argv[1], checkpoint_every=0.05, progress=False, **where)
"""


def test_a_store_in_a_bucket_is_shown_copied_and_pruned(dense: Run, url: str, tmp_path: Path) -> None:
    runs = runs_like(dense, 3)
    place, copy = BucketStore.at(url), Store(tmp_path / "copy")
    nothing = tombola("store", "show", url)  # there is none yet
    assert nothing.exit_code == 2
    assert "object id" in nothing.stderr
    place.bucket.put("process-0/id", b"1")
    assert "process-0" in tombola("store", "show", url).stderr
    place.bucket.delete("process-0/id")
    filled(tmp_path / "origin", runs).check_writable()
    assert tombola("store", "copy", str(tmp_path / "origin"), url).exit_code == 0
    with place.claim(runs[:1]):
        checkpoint = place.checkpoint(runs[1:2])
        checkpoint.save({"a": torch.ones(2)}, {}, "eager")
        checkpoint.wait()
        contents = contents_of(place)
    assert contents.outcomes.keys() == {run.key for run in runs}
    assert (len(contents.checkpoints), contents.others) == (1, [])
    assert contents.outcomes[runs[0].key].bytes == len(place.bucket.get(entry_of(runs[0])) or b"")
    assert place.about(runs[0].key) == Store(tmp_path / "origin").about(runs[0].key)
    shown = tombola("store", "show", url, "--json")
    assert json.loads(shown.stdout)["outcomes"] == 3
    place.bucket.put(entry_of(runs[2]), b"damaged")
    copied = tombola("store", "copy", url, str(copy.folder))
    assert copied.exit_code == 1
    assert str(place.bucket.url.part(entry_of(runs[2]))) in copied.stderr
    reason = json.loads(tombola("store", "show", url, "--check", "--json").stdout)["damaged"][0]["reason"]
    assert reason.startswith(str(place.bucket.url.part(entry_of(runs[2]))))
    assert keys_of(copy) == {run.key for run in runs[:2]}
    place.remove(contents.outcomes[runs[0].key])
    assert place.get(runs[0]) is None
