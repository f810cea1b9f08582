from __future__ import annotations

from pathlib import Path

from tests.support.outcomes import outcome_of
from tests.support.stores import filled, keys_of
from tombola.runs.run import Run
from tombola.runs.store import Store
from tombola.runs.store_contents import checkpointed_run, contents_of


def touch(path: Path, content: bytes = b"12345") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_the_files_of_a_store_are_told_apart(dense: Run, store_folder: Path) -> None:
    Store(store_folder).check_writable()
    store = filled(store_folder, [dense, dense.reinitialised(1)])
    single, stacked = store.checkpoint([dense]), store.checkpoint([dense, dense.reinitialised(1)])
    for path in (single.path, single.part(0).path, stacked.path):
        touch(path)
    touch(store_folder / "damaged" / f"{dense.key}.17.safetensors")
    touch(store_folder / "runs" / "ab" / ".abc.safetensors.7.tmp" / "abc.safetensors")
    touch(store_folder / "process-0" / "runs" / "ab" / "abc.safetensors")
    with store.claim([dense]):
        contents = contents_of(store)
    assert contents.outcomes.keys() == keys_of(store) == {dense.key, dense.reinitialised(1).key}
    found = [checkpointed_run(file) for file in contents.checkpoints]
    assert sorted(found) == sorted([dense.key, dense.key, stacked.path.stem])
    assert [file.path for file in contents.damaged] == [f"damaged/{dense.key}.17.safetensors"]
    (leftover,) = contents.leftovers
    assert (leftover.path, leftover.bytes) == ("runs/ab/.abc.safetensors.7.tmp", 5)
    assert [file.path for file in contents.others] == ["process-0/runs/ab/abc.safetensors"]


def test_files_have_their_size_and_time(dense: Run, store_folder: Path) -> None:
    store = filled(store_folder, [dense])
    (file,) = store.files()
    status = (store_folder / file.path).stat()
    assert (file.bytes, file.modified) == (status.st_size, status.st_mtime)


def test_files_are_removed_once(dense: Run, store_folder: Path) -> None:
    store = filled(store_folder, [dense])
    touch(store_folder / "unfinished" / ".a.7.tmp" / "a")
    for file in [*store.files()]:
        store.remove(file)
        store.remove(file)
    assert not [*store.files()]
    assert store.get(dense) is None
    store.put(dense, outcome_of(dense))
    assert store.get(dense) is not None


def test_what_is_stored_with_an_outcome_is_read_without_it(dense: Run, store_folder: Path) -> None:
    store = filled(store_folder, [dense.until(50)])
    assert store.about(dense.until(50).key)["run"] == Store(store_folder)._read(dense.until(50).key)[1]
