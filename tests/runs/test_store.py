from __future__ import annotations

import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.support.outcomes import outcome_of, random_mask
from tests.support.training import same_bits
from tombola.engines.custom.engine import CustomRun
from tombola.pruning.mask import Mask
from tombola.runs import store as module
from tombola.runs.checkpoint import Checkpoint
from tombola.runs.outcome import Measures, Outcome
from tombola.runs.run import Run
from tombola.runs.sparse_state import pack, unpack
from tombola.runs.store import Store
from tombola.utils.errors import DamagedFile, InputError
from tombola.utils.files import read_tensors
from tombola.utils.workers import Cancelled, parallel_executor


@pytest.mark.parametrize("diverged", [False, True])
def test_an_outcome_is_read_as_it_was_written(dense: Run, store_folder: Path, diverged: bool) -> None:
    run = dense.masked(random_mask(dense, 0.3))
    store, outcome = Store(store_folder), outcome_of(run)
    if diverged:
        outcome = Outcome(outcome.final, {}, Measures(diverged=True, iterations=10), "eager", 1.0)
    assert store.get(run) is None
    store.put(run, outcome)
    found = store.get(run)
    assert found is not None
    assert same_bits(found, outcome)
    assert (found.engine, found.seconds, found.optimizer) == (outcome.engine, outcome.seconds, {})
    assert store.get(dense) is None


@pytest.mark.parametrize("harm", ["truncate", "flip", "empty", "other run"])
def test_a_damaged_entry_is_moved_away_with_a_warning(
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
    assert str(path) in caplog.text
    assert not path.exists()
    assert len(list((store_folder / "damaged").iterdir())) == 1
    with pytest.raises(LookupError, match=dense.key):
        store.load_state(dense.key)
    store.put(dense, outcome_of(dense))
    assert store.get(dense) is not None


LOCK = """import filelock, json, pathlib, sys
path = pathlib.Path(sys.argv[1])
with filelock.FileLock(path):
    path.with_suffix(".json").write_text(json.dumps(sys.argv[2:]))
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def locked_by_another_process(store: Store, run: Run) -> Iterator[subprocess.Popen[bytes]]:
    """`run` is claimed by a process, without the cost of importing torch there."""
    lock = store.folder / "locks" / "0123.lock"
    lock.parent.mkdir(parents=True)
    command = [sys.executable, "-c", LOCK, str(lock), run.key]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"held"
        yield process


@pytest.mark.parametrize("end", ["exits", "is killed"])
def test_a_claim_waits_until_the_process_that_holds_it_ends(dense: Run, store_folder: Path, end: str) -> None:
    store, claimed = Store(store_folder), threading.Event()

    def claim() -> None:
        with store.claim([dense]):
            claimed.set()

    thread = threading.Thread(target=claim)
    with locked_by_another_process(store, dense) as process:
        thread.start()
        with store.claim([dense.reinitialised(5)]):
            pass  # another run is free at once
        assert not claimed.wait(0.7)
        if end == "is killed":
            process.kill()
        else:
            process.communicate()
        thread.join(timeout=120)
        assert claimed.is_set()


def test_a_worker_thread_that_waits_for_a_claim_can_be_cancelled(dense: Run, store_folder: Path) -> None:
    waiting: list[Future[object]] = []

    def interrupted() -> None:
        with parallel_executor(2, threads=True) as executor:
            waiting.append(executor.submit(lambda: Store(store_folder).claim([dense]).__enter__()))
            raise KeyboardInterrupt

    with Store(store_folder).claim([dense]):
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert isinstance(waiting[0].exception(timeout=120), Cancelled)


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


@pytest.mark.parametrize("damaged", [True, False])
def test_a_checkpoint_that_is_damaged_or_of_another_engine_is_dropped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: bool
) -> None:
    checkpoint = Checkpoint(tmp_path / "a.safetensors")
    checkpoint.save({"a": torch.ones(2)}, {}, "eager on cpu")
    if damaged:
        checkpoint.wait()
        checkpoint.path.write_bytes(b"nonsense")
    assert checkpoint.load("eager on cpu" if damaged else "eager on cuda") is None
    assert (str(checkpoint.path) if damaged else "eager on cpu, not by eager on cuda") in caplog.text
    assert not checkpoint.path.exists()


def test_each_stack_of_runs_has_its_own_checkpoint(dense: Run, store_folder: Path) -> None:
    store, other = Store(store_folder), dense.reinitialised(1)
    paths = {store.checkpoint(runs).path for runs in ([dense], [other], [dense, other])}
    assert len(paths) == 3


def test_a_damaged_entry_that_another_process_replaces_meanwhile_is_read(
    dense: Run, store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(store_folder)
    store.put(dense, outcome_of(dense))
    (path,) = (store_folder / "runs").rglob("*.safetensors")
    path.write_bytes(b"damaged")
    read, calls = module.read_tensors, []

    def read_and_replace(where: Path) -> object:
        calls.append(where)
        try:
            return read(where)
        finally:
            if len(calls) == 1:
                store.put(dense, outcome_of(dense))

    monkeypatch.setattr(module, "read_tensors", read_and_replace)
    assert store.get(dense) is not None
    assert not (store_folder / "damaged").exists()


def test_an_existing_folder_keeps_its_gitignore(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.pyc")
    Store(tmp_path).check_writable()
    assert (tmp_path / ".gitignore").read_text() == "*.pyc"
    Store(tmp_path / "new").check_writable()
    assert (tmp_path / "new" / ".gitignore").read_text() == "*\n"


def test_a_store_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = tmp_path / "file" / "store"
    with pytest.raises(InputError, match=re.escape(str(store))):
        Store(store).check_writable()


def test_temporary_files_of_a_killed_process_are_deleted(dense: Run, store_folder: Path) -> None:
    store = Store(store_folder)
    store.put(dense, outcome_of(dense))
    (entry,) = (store_folder / "runs").rglob("*.safetensors")
    half_written = entry.with_name(f".{entry.name}.12345.tmp")
    half_written.write_bytes(b"half")
    with store.claim([dense]):
        assert list(entry.parent.iterdir()) == [entry]


GOLDEN = Path(__file__).parent / "golden"
KEY = "9b5ecca335d6004f04ef83b486e9d680"


def test_an_outcome_written_by_an_earlier_version_is_found_under_the_key_of_its_run() -> None:
    tensors, about = read_tensors(GOLDEN / "runs" / KEY[:2] / f"{KEY}.safetensors")
    _, mask = unpack(tensors)
    start = about["run"]["start"]
    start["network"]["inputs"] = tuple(start["network"]["inputs"])
    run = CustomRun(**about["run"] | {"mask": mask})
    assert run.key == KEY
    outcome = Store(GOLDEN).get(run)
    assert outcome is not None
    assert outcome.engine == "yours, torch 2.13.0+cpu"
    assert (outcome.measures.diverged, outcome.measures.iterations) == (False, 40)
    assert {name: values.tolist() for name, values in outcome.curves.items()} == {
        "figure/figure": [1.0],
        "iteration": [40],
    }
    assert mask.counts == {"0.weight": 410, "2.weight": 82}
    assert [int((outcome.final[name] != 0).sum()) for name in mask] == [410, 82]
    assert outcome.final["2.bias"].tolist() == [0.08265514671802521, -0.06262218952178955]
    assert torch.equal(outcome.final["0.weight"][mask["0.weight"]], tensors["kept/0.weight"])
    assert Store(GOLDEN).load_state(KEY).keys() == outcome.final.keys()
    assert outcome.optimizer == Store(GOLDEN).load_state(KEY, optimizer=True) == {}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 1))
def test_unpacking_gives_the_same_bits_and_mask(seed: int, density: float) -> None:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Linear(7, 5))
    mask = Mask({name: torch.rand(kept.shape) < density for name, kept in Mask.full(network).items()})
    mask.apply_(network)
    state, again = unpack(pack(network.state_dict(), mask))
    assert again == mask
    assert state.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(state[name], tensor)
        assert state[name].dtype == tensor.dtype


def test_only_kept_weights_take_space() -> None:
    network = nn.Linear(100, 100, bias=False)
    mask = Mask({"weight": torch.eye(100, dtype=torch.bool)})
    packed = pack(network.state_dict(), mask)
    assert packed["kept/weight"].shape == (100,)
    assert packed["mask/weight"].shape == (1250,)


def test_entries_that_do_not_match_are_rejected() -> None:
    packed = pack(nn.Linear(4, 4).state_dict(), Mask({"weight": torch.eye(4, dtype=torch.bool)}))
    for entry, wrong in [
        ("kept/weight", torch.zeros(3)),
        ("kept/weight", torch.zeros(5)),
        ("kept/weight", torch.zeros(4, 1)),
        ("mask/weight", torch.zeros(2)),
        ("mask/weight", torch.zeros(1, dtype=torch.uint8)),
        ("shape/weight", torch.tensor([9, 9])),
        ("shape/weight", torch.tensor([-4, -4])),
        ("shape/weight", torch.tensor([4.0, 4.0])),
    ]:
        with pytest.raises(DamagedFile, match=r"\bweight\b"):
            unpack(packed | {entry: wrong})
    del packed["mask/weight"]
    with pytest.raises(DamagedFile):
        unpack(packed)


def test_peeking_changes_nothing(dense: Run, store_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, outcome = Store(store_folder), outcome_of(dense)
    assert store.peek(dense) is None
    assert not store_folder.exists()
    store.put(dense, outcome)
    found = store.peek(dense)
    assert found is not None
    assert same_bits(found, outcome)
    assert store.peek(dense.reinitialised(1)) is None
    path = store._entry(dense.key)
    damaged = path.read_bytes()[:-1] + b"?"
    path.write_bytes(damaged)
    assert store.peek(dense) is None
    assert path.read_bytes() == damaged
    assert not caplog.records
    assert store.get(dense) is None  # which sets it aside
    assert not path.exists()
