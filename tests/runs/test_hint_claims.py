"""Claims where no lock can be trusted."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tombola.runs import hint_claims
from tombola.runs.claims import hold
from tombola.runs.hint_claims import KEYS_OF_OBJECT, RENEW, STALE, HintClaim
from tombola.runs.objects import FolderObjects, StoredObject
from tombola.runs.run import Run
from tombola.runs.store import Store
from tombola.utils import network_folders

ELSEWHERE = "claims/0123abcd.77.1f"
"""A claim of a process on another machine."""


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hint_claims, "PAUSE", (0.01, 0.05))


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in FolderObjects(folder).list("claims"))


def claim_elsewhere(folder: Path, keys: Collection[str], age: float) -> None:
    """Another machine has claimed `keys`, and shown `age` seconds ago that it lives."""
    claimed = f"{ELSEWHERE}~{''.join(map(hint_claims._digits, keys))}"
    for name, ago in ((claimed, age + 1000.0), (f"{ELSEWHERE}~alive", age)):
        FolderObjects(folder).put(name, b"")
        os.utime(folder / name, (time.time() - ago,) * 2)


def test_a_key_is_held_once_and_given_back(tmp_path: Path) -> None:
    first, second = HintClaim(FolderObjects(tmp_path)), HintClaim(FolderObjects(tmp_path))
    assert first.try_add(["a", "b"])
    assert not second.try_add(["b", "c"])
    assert second.try_add(["c"])  # which was not held in part
    first.remove(["a"])
    time.sleep(0.06)
    assert not second.try_add(["b"])  # the object of both is still there
    first.remove(["b"])
    time.sleep(0.06)
    assert second.try_add(["a", "b"])
    second.release()
    first.release()
    assert names(tmp_path) == []


def test_what_another_holds_is_not_looked_for_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hint_claims, "PAUSE", (30.0, 30.0))
    first, second = HintClaim(FolderObjects(tmp_path)), HintClaim(FolderObjects(tmp_path))
    assert first.try_add(["a"])
    assert not second.try_add(["a"])
    first.release()
    assert not second.try_add(["a"])
    assert second.try_add(["b"])
    second.release()


def test_one_listing_tells_of_all_that_others_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hint_claims, "PAUSE", (30.0, 30.0))
    first, second = HintClaim(FolderObjects(tmp_path)), HintClaim(FolderObjects(tmp_path))
    keys = [f"run {number}" for number in range(50)]
    assert first.try_add(keys)
    listings = []
    listed = FolderObjects.list

    def count(self: FolderObjects, folder: str) -> list[StoredObject]:
        listings.append(folder)
        return listed(self, folder)

    monkeypatch.setattr(FolderObjects, "list", count)
    assert not any(second.try_add([key]) for key in keys)
    assert len(listings) == 1
    first.release()
    monkeypatch.setattr(second, "_again", 0.0)  # the pause is over
    assert all(second.try_add([key]) for key in keys[:2])
    second.release()


def test_what_is_claimed_after_a_release_is_renewed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hint_claims, "RENEW", 0.02)
    claim = HintClaim(FolderObjects(tmp_path))
    claim.release()
    for _ in range(2):
        assert claim.try_add(["a"])
        end = time.monotonic() + 10.0
        while not any(name.endswith("~alive") for name in names(tmp_path)):
            assert time.monotonic() < end
            time.sleep(0.01)
        claim.release()
        assert names(tmp_path) == []


def test_thousands_of_keys_are_claimed(tmp_path: Path) -> None:
    keys = [f"run {number}" for number in range(3000)]
    claim, other = HintClaim(FolderObjects(tmp_path)), HintClaim(FolderObjects(tmp_path))
    assert claim.try_add(keys)
    assert len(names(tmp_path)) == math.ceil(3000 / KEYS_OF_OBJECT)
    assert all(len(name.removeprefix("claims/")) <= 255 for name in names(tmp_path))
    assert not other.try_add(["new", keys[1234]])
    claim.remove(keys)
    assert names(tmp_path) == []
    for held in (claim, other):
        held.release()


@pytest.mark.parametrize("age", [STALE - 30, STALE + 30])
def test_an_owner_elsewhere_that_shows_nothing_for_long_holds_nothing(tmp_path: Path, age: float) -> None:
    claim_elsewhere(tmp_path, ["a", "b"], age)
    claim = HintClaim(FolderObjects(tmp_path))
    assert claim.try_add(["b"]) == (age > STALE)
    claim.release()
    assert bool(names(tmp_path)) == (age < STALE)  # what the dead have left is deleted


def test_a_waiter_goes_on_when_the_owner_elsewhere_is_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hint_claims, "RENEW", 0.1)
    monkeypatch.setattr(hint_claims, "STALE", 1.0)
    claim_elsewhere(tmp_path, ["a"], 0.0)
    with hold(HintClaim(FolderObjects(tmp_path)), ["a"]):
        assert not any(name.startswith(ELSEWHERE) for name in names(tmp_path))


def test_an_owner_shows_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hint_claims, "RENEW", 0.05)
    monkeypatch.setattr(hint_claims, "STALE", 0.5)
    claim, other = HintClaim(FolderObjects(tmp_path)), HintClaim(FolderObjects(tmp_path))
    assert claim.try_add(["a"])
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        assert not other.try_add(["a"])
        time.sleep(0.02)
    claim.release()
    other.release()
    assert names(tmp_path) == []
    assert RENEW < STALE / 3


CLAIM = """import sys
from pathlib import Path
from tombola.runs.hint_claims import HintClaim
from tombola.runs.objects import FolderObjects
print(HintClaim(FolderObjects(Path(sys.argv[1]))).try_add(["a"]), flush=True)
sys.stdin.read()
"""


def test_a_process_of_this_machine_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    claim = HintClaim(FolderObjects(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"True"
        assert not claim.try_add(["a"])
        process.kill()
    time.sleep(0.06)
    assert claim.try_add(["a"])
    claim.release()
    assert names(tmp_path) == []


def test_no_key_is_held_twice_and_nobody_waits_for_ever(tmp_path: Path) -> None:
    held, failures = Counter[str](), []
    compare = threading.Lock()

    def claim_some(seed: int) -> None:
        keys = random.Random(seed).sample("abcdefgh", 3)
        with hold(HintClaim(FolderObjects(tmp_path)), keys):
            with compare:
                held.update(keys)
                failures.extend(key for key in keys if held[key] > 1)
            time.sleep(0.01)
            with compare:
                held.subtract(keys)

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(claim_some, range(12)))
    assert failures == []
    assert names(tmp_path) == []


def test_a_store_on_a_network_file_system_uses_these(
    dense: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/export {tmp_path}/store nfs4 rw,local_lock=all 0 0\n")
    monkeypatch.setattr(network_folders, "MOUNTS", mounts)
    store = Store(tmp_path / "store")
    with store.claim([dense]):
        assert not (store.folder / "locks").exists()
        assert len(names(store.folder)) == 1
        other = store.claims()
        assert not other.try_add([dense.key])
        other.release()
    assert names(store.folder) == []
