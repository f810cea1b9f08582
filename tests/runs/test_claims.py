"""Claims on sets of runs, among threads and processes."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import filelock
import pytest

from tombola.runs.claims import GUARD, Claim, hold
from tombola.runs.run import Run
from tombola.runs.store import Store
from tombola.utils.errors import InputError
from tombola.utils.workers import Cancelled, parallel_executor

CLAIM = """import sys
from pathlib import Path
from tombola.runs.claims import Claim, hold
with hold(Claim(Path(sys.argv[1])), sys.argv[2:]):
    print("held", flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_thousands_of_runs_are_claimed_with_few_open_files(dense: Run, store_folder: Path) -> None:
    resource = pytest.importorskip("resource")
    runs = [dense.reinitialised(seed) for seed in range(3000)]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        with Store(store_folder).claim(runs):
            assert len(names(store_folder / "locks")) == 3
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_no_key_is_held_twice_and_nobody_waits_for_ever(tmp_path: Path) -> None:
    held, failures, most = Counter[str](), [], 0
    compare = threading.Lock()

    def claim_some(seed: int) -> None:
        nonlocal most
        keys = random.Random(seed).sample("abcdefgh", 3)
        with hold(Claim(tmp_path), keys):
            with compare:
                held.update(keys)
                failures.extend(key for key in keys if held[key] > 1)
            most = max(most, held.total())
            threading.Event().wait(0.01)
            with compare:
                held.subtract(keys)

    with ThreadPoolExecutor(6) as executor:
        list(executor.map(claim_some, range(24)))
    assert failures == []
    assert most > 3  # others are not kept waiting
    assert names(tmp_path) == {GUARD}


def test_what_a_killed_process_claimed_can_be_claimed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CLAIM, str(tmp_path), "a", "b"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"held"
        waiting, claimed = threading.Event(), threading.Event()

        def claim_too() -> None:
            waiting.set()
            with hold(Claim(tmp_path), ["b", "c"]):
                claimed.set()

        thread = threading.Thread(target=claim_too)
        thread.start()
        assert waiting.wait(60)
        with hold(Claim(tmp_path), ["c"]):
            pass  # who waits holds nothing
        assert not claimed.wait(0.5)
        process.kill()
        thread.join(60)
    assert claimed.is_set()
    assert names(tmp_path) == {GUARD}


@pytest.mark.parametrize("keys", [None, "", '["a", "b'])
def test_a_process_that_was_killed_while_it_claimed_holds_nothing(tmp_path: Path, keys: str | None) -> None:
    (tmp_path / "0.lock").touch()
    if keys is not None:
        (tmp_path / "0.json").write_text(keys)
    with hold(Claim(tmp_path), ["a"]):
        assert {"0.lock", "0.json"}.isdisjoint(names(tmp_path))


def test_an_error_releases_the_claim(tmp_path: Path) -> None:
    with pytest.raises(KeyError), hold(Claim(tmp_path), ["a"]):
        raise KeyError
    with hold(Claim(tmp_path), ["a"]):
        pass


def test_a_claim_that_cannot_be_written_is_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:  # noqa: ARG001
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(InputError, match="No space left"), hold(Claim(tmp_path), ["a"]):
            pytest.fail("it was not written")
    assert names(tmp_path) == {GUARD}
    with hold(Claim(tmp_path), ["a"]):
        pass


def test_the_temporary_files_of_claimed_runs_are_deleted_and_no_others(dense: Run, store_folder: Path) -> None:
    runs = [dense.reinitialised(seed) for seed in range(4)]
    left = []
    for run in runs:
        folder = store_folder / "runs" / run.key[:2]
        folder.mkdir(parents=True, exist_ok=True)
        left.append(folder / f".{run.key}.safetensors.123.tmp")
        left[-1].touch()
    with Store(store_folder).claim(runs[:3]):
        assert [path.exists() for path in left] == [False] * 3 + [True]


def test_a_run_that_an_earlier_version_trains_is_waited_for(tmp_path: Path) -> None:
    lock = filelock.FileLock(tmp_path / "a.lock")  # it had a lock for each key, and no other file
    lock.acquire()
    claimed = threading.Event()

    def wait_for_it() -> None:
        with hold(Claim(tmp_path), ["a"]):
            claimed.set()

    thread = threading.Thread(target=wait_for_it)
    thread.start()
    with hold(Claim(tmp_path), ["b"]):
        assert not claimed.is_set()
    lock.release()
    thread.join(60)
    assert claimed.is_set()


def test_a_claim_whose_keys_cannot_be_read_stops_nobody(tmp_path: Path) -> None:
    with filelock.FileLock(tmp_path / "f0.lock").acquire():
        (tmp_path / "f0.json").write_text('["a')  # the disk was full, and its owner has not released it yet
        with hold(Claim(tmp_path), ["a"]):
            assert names(tmp_path) >= {"f0.lock", "f0.json"}  # they are their owner's


def test_a_guard_that_cannot_be_opened_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / GUARD).mkdir()
    with pytest.raises(InputError, match=str(tmp_path)), hold(Claim(tmp_path), ["a"]):
        pass


def test_whoever_waits_for_a_claim_can_be_cancelled(tmp_path: Path) -> None:
    with hold(Claim(tmp_path), ["a"]), suppress(KeyError), parallel_executor(2, threads=True) as executor:
        waiting = executor.submit(lambda: hold(Claim(tmp_path), ["a"]).__enter__())
        while not waiting.running():
            pass
        raise KeyError  # which cancels it
    assert isinstance(waiting.exception(60), Cancelled)


def test_files_of_others_are_left_alone(dense: Run, store_folder: Path) -> None:
    entry = Store(store_folder)._entry(dense.key)
    entry.parent.mkdir(parents=True)
    others = [entry.parent / name for name in (".a.tmp", ".tmp", f".{entry.name}.tmp")]
    for other in others:
        other.touch()
    half = entry.parent / f".{entry.name}.123.tmp"
    half.mkdir()
    (half / entry.name).write_bytes(b"half of it")
    with Store(store_folder).claim([dense]):
        assert set(entry.parent.iterdir()) == set(others)


def test_a_claim_takes_more_keys_and_gives_some_back(tmp_path: Path) -> None:
    one, other = Claim(tmp_path), Claim(tmp_path)
    assert one.try_add("ab")
    assert one.try_add("bc")  # one's own
    assert not other.try_add("cd")
    assert other.try_add("d")
    one.remove("c")
    assert other.try_add("cd")
    assert not one.try_add("c")
    assert len(names(tmp_path)) == 5
    one.release()
    assert other.try_add("ab")
    other.release()
    assert names(tmp_path) == {GUARD}


def test_a_claim_that_takes_and_gives_back_thousands_of_keys_stays_small(tmp_path: Path) -> None:
    one, other = Claim(tmp_path), Claim(tmp_path)
    for number in range(3000):
        assert one.try_add([f"key-{number}"])
        if number >= 10:
            one.remove([f"key-{number - 10}"])
    (keys,) = tmp_path.glob("*.json")
    assert keys.stat().st_size < 3000
    assert other.try_add([f"key-{number}" for number in range(2990)])
    assert not any(other.try_add([f"key-{number}"]) for number in range(2990, 3000))
    one.release()
    other.release()


def test_a_key_counts_as_held_until_the_line_that_gives_it_back_is_complete(tmp_path: Path) -> None:
    one, other = Claim(tmp_path), Claim(tmp_path)
    assert one.try_add("ab")
    with next(tmp_path.glob("*.json")).open("a") as file:
        file.write('["-a"')
    assert not other.try_add("a")
    assert other.try_add("c")
    one.release()
    other.release()
