from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import filelock
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tombola.utils.errors import DamagedFile, InputError
from tombola.utils.files import (
    ABANDONED,
    atomic_write,
    digest,
    file_lock,
    read_about,
    read_tensors,
    remove_temporary,
    write_tensors,
)
from tombola.utils.processes import process_name
from tombola.utils.workers import Cancelled, parallel_executor

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([True, False]), "none": torch.zeros(0, 4)}
ABOUT = {"name": "θ0", "count": 3, "none": None}


def test_tensors_and_values_about_them_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.safetensors"
    write_tensors(path, TENSORS, ABOUT)
    tensors, about = read_tensors(path)
    assert about == ABOUT
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert [file.name for file in path.parent.iterdir()] == ["file.safetensors"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_every_damaged_byte_is_noticed(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "file.safetensors"
    write_tensors(path, TENSORS, ABOUT)
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        tensors, about = read_tensors(path)
    except DamagedFile:
        return
    # Only padding in the header may differ.
    assert about == ABOUT
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_truncated_file_is_damaged(tmp_path: Path, length: int) -> None:
    path = tmp_path / "file.safetensors"
    write_tensors(path, TENSORS, ABOUT)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DamagedFile, match=r"file\.safetensors"):
        read_tensors(path)


def test_a_missing_file_is_not_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "none.safetensors")


def test_a_safetensors_file_of_another_program_is_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file(TENSORS, tmp_path / "other.safetensors")
    with pytest.raises(DamagedFile, match="no digest"):
        read_tensors(tmp_path / "other.safetensors")


def test_a_failed_write_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def write_half() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half of ")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.bool, torch.int64])
def test_tensors_of_every_dtype_are_read_back(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"x": torch.tensor([[0.0, 1.0], [2.0, 4.0]]).to(dtype).t(), "scalar": torch.ones(()).to(dtype)}
    write_tensors(tmp_path / "numbers.safetensors", tensors, {})
    read, _ = read_tensors(tmp_path / "numbers.safetensors")
    for name, tensor in tensors.items():
        assert read[name].dtype == dtype
        assert torch.equal(read[name].float(), tensor.float())


@pytest.mark.parametrize("about", ["[]", "3", "null", "{", "", "[" * 10**5, '{"a": "\\ud800"', 3, None, ["{}"]])
def test_an_invalid_header_is_damage(tmp_path: Path, about: object) -> None:
    path = tmp_path / "file.safetensors"
    signed = {"digest": digest(TENSORS, about if isinstance(about, str) else ""), "about": about}
    safetensors.torch.save_file(TENSORS, path, {"tombola": json.dumps(signed)})
    with pytest.raises(DamagedFile, match=r"file\.safetensors"):
        read_tensors(path)


def test_a_lock_is_held_in_the_block_and_released_after_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with file_lock(path), pytest.raises(filelock.Timeout):
        filelock.FileLock(path).acquire(timeout=0)
    with pytest.raises(KeyError), file_lock(path):
        raise KeyError
    filelock.FileLock(path).acquire(timeout=0)


def test_a_cancelled_thread_stops_waiting_for_a_lock(tmp_path: Path) -> None:
    waiting = threading.Event()

    def wait() -> None:
        waiting.set()
        with file_lock(tmp_path / "lock"):
            pytest.fail("the lock is held")

    def cancel_while_waiting() -> None:
        with parallel_executor(2, threads=True) as executor:
            futures.append(executor.submit(wait))
            assert waiting.wait(10)
            raise KeyboardInterrupt

    futures = []
    with file_lock(tmp_path / "lock"), pytest.raises(KeyboardInterrupt):
        cancel_while_waiting()
    assert isinstance(futures[0].exception(), Cancelled)


def test_ctrl_c_while_a_file_is_read_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, convert = tmp_path / "file.safetensors", torch.asarray
    write_tensors(path, TENSORS, ABOUT)
    seen: list[object] = []

    def interrupted(*given: Any, **options: Any) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        seen.append(given)
        return convert(*given, **options)

    monkeypatch.setattr(torch, "asarray", interrupted)
    former = signal.signal(signal.SIGINT, signal.default_int_handler)  # other tests may have left their own
    try:
        with pytest.raises(KeyboardInterrupt):
            read_tensors(path)
        assert len(seen) > 1  # it was read to its end
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, former)


def test_a_file_that_is_too_large_is_one_clear_line_and_leaves_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(InputError, match="too large") as raised:
            write_tensors(tmp_path / "a.safetensors", {"a": torch.ones(1000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_the_values_about_tensors_are_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    write_tensors(path, TENSORS, ABOUT)
    assert read_about(path) == ABOUT
    write_tensors(path, {}, ABOUT)
    assert read_about(path) == ABOUT
    with pytest.raises(FileNotFoundError):
        read_about(tmp_path / "none")


def test_a_header_that_is_damaged_or_a_file_that_ends_early_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    write_tensors(path, TENSORS, ABOUT)
    content = path.read_bytes()
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "foreign")
    others = [b"", b"{}", content[:-1], content + b"0", content[:20], b"\xff" * 8 + content[8:], b"\0" * 40]
    for other in [*others, content.replace(b"data_offsets", b"data_offset2"), (tmp_path / "foreign").read_bytes()]:
        path.write_bytes(other)
        with pytest.raises(DamagedFile, match="file"):
            read_about(path)


@pytest.fixture
def ended_process() -> str:
    """The name of a process of this machine that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return f"{process_name().partition('.')[0]}.{process.pid}"


def test_what_a_killed_process_left_is_removed_and_what_may_be_in_use_stays(
    tmp_path: Path, ended_process: str
) -> None:
    target, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    day_old = tmp_path / ".a.safetensors.0123abcd.78-7.tmp"
    left = [tmp_path / f".a.safetensors.{ended_process}-7.tmp", tmp_path / ".a.safetensors.12345.tmp", day_old]
    stays = [
        tmp_path / f".a.safetensors.{process_name()}-7.tmp",  # another thread writes it
        tmp_path / ".a.safetensors.0123abcd.77-7.tmp",  # another machine
        tmp_path / f".b.safetensors.{ended_process}-7.tmp",
        tmp_path / ".a.safetensors.tmp",
    ]
    for folder in (*left, *stays):
        folder.mkdir()
        (folder / "a.safetensors").write_text("half of")
    os.utime(day_old, (time.time() - 2 * ABANDONED,) * 2)
    remove_temporary([target])
    assert set(tmp_path.iterdir()) == set(stays)
    remove_temporary([target, other])
    assert set(tmp_path.iterdir()) == {*stays[:2], stays[3]}


def test_files_are_written_in_a_folder_that_names_the_process(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "file") as temporary:
        temporary.write_text("new")
        (folder,) = tmp_path.iterdir()
        assert re.fullmatch(rf"\.file\.{re.escape(process_name())}-\d+\.tmp", folder.name)
        remove_temporary([tmp_path / "file"])  # by another thread
    assert (tmp_path / "file").read_text() == "new"


def test_threads_may_write_the_same_file(tmp_path: Path) -> None:
    met = threading.Barrier(4)

    def write(number: int) -> None:
        with atomic_write(tmp_path / "file") as temporary:
            met.wait(60)
            temporary.write_text(str(number))

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(write, range(4)))
    assert (tmp_path / "file").read_text() in "0123"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
