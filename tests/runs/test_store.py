from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch

from tests.conftest import outcome_of, random_mask
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.runs.store import Checkpoint, Store, check_writable
from tombola.utils.errors import InputError
from tombola.utils.workers import Cancelled, parallel_executor


def same(a: Outcome, b: Outcome) -> bool:
    return (
        a.measures == b.measures
        and a.engine == b.engine
        and a.seconds == b.seconds
        and a.final.keys() == b.final.keys()
        and all(torch.equal(a.final[name], b.final[name]) for name in a.final)
        and a.curves.keys() == b.curves.keys()
        and all(torch.equal(a.curves[name], b.curves[name]) for name in a.curves)
    )


def test_what_is_put_is_got(dense: Run, store_folder: Path) -> None:
    run = dense.masked(random_mask(dense, 0.3))
    store, outcome = Store(store_folder), outcome_of(run)
    assert store.get(run) is None
    store.put(run, outcome)
    found = store.get(run)
    assert found is not None
    assert same(found, outcome)
    assert store.get(dense) is None


def test_a_diverged_run_is_remembered(dense: Run, store_folder: Path) -> None:
    from tombola.runs.outcome import Measures

    outcome = Outcome(outcome_of(dense).final, {}, Measures(diverged=True, iterations=10), "eager", 1.0)
    Store(store_folder).put(dense, outcome)
    found = Store(store_folder).get(dense)
    assert found is not None
    assert same(found, outcome)


@pytest.mark.parametrize("harm", ["truncate", "flip", "empty", "other run"])
def test_a_damaged_entry_is_set_aside_with_a_warning(
    dense: Run, store_folder: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    store = Store(store_folder)
    store.put(dense, outcome_of(dense))
    (path,) = (store_folder / "runs").rglob("*.safetensors")
    content = bytearray(path.read_bytes())
    if harm == "truncate":
        path.write_bytes(content[:-10])
    elif harm == "flip":
        content[-1] ^= 1
        path.write_bytes(content)
    elif harm == "empty":
        path.write_bytes(b"")
    else:
        other = dense.reinitialised(1)
        store.put(other, outcome_of(other))
        (other_path,) = set((store_folder / "runs").rglob("*.safetensors")) - {path}
        path.write_bytes(other_path.read_bytes())
    with caplog.at_level(logging.WARNING):
        assert store.get(dense) is None
    assert "set aside" in caplog.text
    assert not path.exists()
    assert len(list((store_folder / "damaged").iterdir())) == 1
    store.put(dense, outcome_of(dense))
    assert store.get(dense) is not None


def hold(folder: Path, run: Run, seconds: float) -> None:
    with Store(folder).claim(run):
        (folder / "held").touch()
        time.sleep(seconds)
        (folder / "dropped").touch()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_claim_excludes_other_processes_until_it_is_dropped(dense: Run, store_folder: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(store_folder, dense, 1.0))
    process.start()
    wait_for(store_folder / "held")
    with Store(store_folder).claim(dense.reinitialised(5)):
        assert not (store_folder / "dropped").exists()  # another run is free at once
    with Store(store_folder).claim(dense):
        assert (store_folder / "dropped").exists()
    process.join(timeout=10)
    assert process.exitcode == 0


def test_a_worker_thread_that_waits_for_a_claim_can_be_told_to_give_up(dense: Run, store_folder: Path) -> None:
    waiting: list[Future[object]] = []

    def interrupted() -> None:
        with parallel_executor(2, threads=True) as executor:
            waiting.append(executor.submit(lambda: Store(store_folder).claim(dense).__enter__()))
            raise KeyboardInterrupt

    with Store(store_folder).claim(dense):
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert isinstance(waiting[0].exception(timeout=10), Cancelled)


def test_the_claim_of_a_killed_process_is_dropped(dense: Run, store_folder: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(store_folder, dense, 600.0))
    process.start()
    wait_for(store_folder / "held")
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    with Store(store_folder).claim(dense):
        assert not (store_folder / "dropped").exists()
    process.join(timeout=10)
    assert process.exitcode == -signal.SIGKILL


def test_checkpoints_are_written_read_and_cleared(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "unfinished" / "a.safetensors", every=0.0)
    assert checkpoint.load("eager") is None
    assert checkpoint.due()
    checkpoint.save({"a": torch.ones(2)}, {"iteration": 3}, "eager")
    loaded = checkpoint.load("eager")
    assert loaded is not None
    assert loaded[1] == {"iteration": 3}
    checkpoint.clear()
    assert checkpoint.load("eager") is None
    assert not Checkpoint(tmp_path / "b").due()  # not every moment


def test_a_damaged_checkpoint_is_dropped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = Checkpoint(tmp_path / "a.safetensors")
    checkpoint.save({"a": torch.ones(2)}, {}, "eager")
    checkpoint.path.write_bytes(b"nonsense")
    assert checkpoint.load("eager") is None
    assert "starts over" in caplog.text


def test_a_checkpoint_of_another_engine_is_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = Checkpoint(tmp_path / "a.safetensors")
    checkpoint.save({"a": torch.ones(2)}, {}, "eager on cpu")
    assert checkpoint.load("eager on cuda") is None
    assert "was written by eager on cpu, not by eager on cuda" in caplog.text
    assert not checkpoint.path.exists()


def test_runs_trained_as_one_have_a_checkpoint_of_their_own(dense: Run, store_folder: Path) -> None:
    store, other = Store(store_folder), dense.reinitialised(1)
    paths = {store.checkpoint(runs).path for runs in ([dense], [other], [dense, other])}
    assert len(paths) == 3


def test_an_entry_that_another_process_mends_meanwhile_is_not_set_aside(
    dense: Run, store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tombola.runs import store as module

    store = Store(store_folder)
    store.put(dense, outcome_of(dense))
    (path,) = (store_folder / "runs").rglob("*.safetensors")
    path.write_bytes(b"damaged")
    read, calls = module.read_tensors, []

    def read_and_mend(where: Path) -> object:
        calls.append(where)
        try:
            return read(where)
        finally:
            if len(calls) == 1:
                store.put(dense, outcome_of(dense))

    monkeypatch.setattr(module, "read_tensors", read_and_mend)
    assert store.get(dense) is not None
    assert not (store_folder / "damaged").exists()


def test_a_folder_of_the_users_own_keeps_its_gitignore(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.pyc")
    check_writable(tmp_path)
    assert (tmp_path / ".gitignore").read_text() == "*.pyc"
    check_writable(tmp_path / "new")
    assert (tmp_path / "new" / ".gitignore").read_text() == "*\n"


def test_a_store_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        check_writable(tmp_path / "file" / "store")


def test_what_a_killed_process_left_half_written_is_swept(dense: Run, store_folder: Path) -> None:
    store = Store(store_folder)
    store.put(dense, outcome_of(dense))
    (entry,) = (store_folder / "runs").rglob("*.safetensors")
    half_written = entry.with_name(f".{entry.name}.12345.tmp")
    half_written.write_bytes(b"half")
    with store.claim(dense):
        assert list(entry.parent.iterdir()) == [entry]
