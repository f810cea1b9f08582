"""What of a store in a bucket is kept on this machine."""

from __future__ import annotations

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.support.errors import raises_input_error
from tests.support.outcomes import outcome_of
from tests.support.s3_server import BUCKET, Proxy, entry_of, move_to, objects
from tests.support.training import same_bits
from tombola.runs import bucket_store, store_url
from tombola.runs.bucket_store import BucketStore
from tombola.runs.checkpoint import Checkpoint
from tombola.runs.run import Run
from tombola.runs.store import Store
from tombola.runs.store_url import connect
from tombola.utils.files import writing


def test_a_damaged_cache_is_filled_again(dense: Run, url: str, caplog: pytest.LogCaptureFixture) -> None:
    store = BucketStore.at(url)
    store.put(dense, outcome_of(dense))
    store._entry(dense.key).write_bytes(b"nonsense")
    assert store.get(dense) is not None
    store._entry(dense.key).write_bytes(b"nonsense")
    assert store.load_state(dense.key)
    assert objects(store) == [entry_of(dense)]
    assert caplog.text == ""


def test_threads_that_need_the_same_outcome_fill_the_cache_together(
    dense: Run, url: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    BucketStore.at(url).put(dense, outcome_of(dense))
    move_to(tmp_path / "second", monkeypatch)
    store, proxy.delay = BucketStore.at(url), 0.05
    with ThreadPoolExecutor(6) as executor:
        found = list(executor.map(store.get, [dense] * 6))
    assert all(outcome is not None and same_bits(outcome, outcome_of(dense)) for outcome in found)


def test_what_the_bucket_has_lost_is_written_again_from_the_cache(dense: Run, url: str, proxy: Proxy) -> None:
    store = BucketStore.at(url)
    store.put(dense, outcome_of(dense))
    content = store.bucket.get(entry_of(dense))
    store.bucket.delete(entry_of(dense))
    long_ago = time.time() - 2 * bucket_store.TRUSTED
    os.utime(store._entry(dense.key), (long_ago, long_ago))
    store = BucketStore.at(url)
    assert store.peek(dense) is None
    assert objects(store) == []  # peeking changes nothing
    proxy.taken()
    assert store.get(dense) is not None
    assert proxy.taken() == ["PUT"]
    assert store.bucket.get(entry_of(dense)) == content
    proxy.taken()
    assert store.get(dense) is not None
    assert proxy.taken() == []


def test_an_outcome_that_could_not_be_uploaded_is_not_in_the_cache(
    dense: Run, url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_url, "ATTEMPTS", 1)
    store = BucketStore.at(url)
    proxy.always = "503"
    with raises_input_error(f"s3://{BUCKET}"):
        store.put(dense, outcome_of(dense))
    assert not store._entry(dense.key).exists()
    proxy.always = "pass"
    assert store.get(dense) is None


@pytest.mark.parametrize("replaced", [False, True])
def test_a_store_that_was_emptied_or_replaced_is_not_answered_from_the_cache(
    dense: Run, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    store = BucketStore.at(url)
    store.check_writable()
    store.put(dense, outcome_of(dense))
    before = store.store_id
    store.check_writable()
    assert store._entry(dense.key).exists()
    for name in objects(store):
        store.bucket.delete(name)
    if replaced:
        with monkeypatch.context() as patch:
            move_to(tmp_path / "second", patch)
            BucketStore.at(url).check_writable()
    store = BucketStore.at(url)
    store.check_writable()
    assert store.get(dense) is None
    assert store.store_id not in (before, None)
    assert (store.folder / "id").read_text() == store.store_id


def test_checkpoints_do_not_stay_in_the_cache(
    dense: Run, url: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def iteration(checkpoint: Checkpoint) -> int | None:
        loaded = checkpoint.load("eager")
        return None if loaded is None else loaded[1]["iteration"]

    first = BucketStore.at(url, 0.0).checkpoint([dense])
    first.save({"a": torch.ones(2)}, {"iteration": 3}, "eager")
    first.wait()
    assert not first.path.exists()
    move_to(tmp_path / "second", monkeypatch)
    second = BucketStore.at(url, 0.0).checkpoint([dense])
    assert iteration(second) == 3
    assert not second.path.exists()
    monkeypatch.setattr(store_url, "ATTEMPTS", 1)
    connect.cache_clear()
    proxy.always = "503"
    second.save({"a": torch.ones(2)}, {"iteration": 5}, "eager")
    second.wait()
    proxy.always = "pass"
    assert iteration(second) == 5  # the object is older
    second.save({"a": torch.ones(2)}, {"iteration": 7}, "eager")
    second.wait()
    assert iteration(first) == iteration(second) == 7


def test_a_cache_that_cannot_be_written_is_a_warning(
    dense: Run, url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Store, key: str, _: Path) -> None:
        with writing(self._entry(key)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = BucketStore.at(url)
    monkeypatch.setattr(Store, "put_file", full)
    store.put(dense, outcome_of(dense))
    assert "cannot be written" in caplog.text
    assert entry_of(dense) in objects(store)
    found = store.get(dense)
    assert found is not None
    assert same_bits(found, outcome_of(dense))
    store.bucket.put(entry_of(dense), b"damaged")
    with raises_input_error(entry_of(dense)):
        store.get(dense)
