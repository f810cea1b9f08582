from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path

import pytest

from tombola.utils.gpus import VISIBLE, count_sharing, visible_gpus, worker_gpus
from tombola.utils.workers import parallel_executor, worker_count


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv(VISIBLE, raising=False)


@pytest.mark.parametrize(
    ("variable", "count", "expected"),
    [
        (None, 0, []),
        (None, 2, ["0", "1"]),
        ("2,5", 2, ["2", "5"]),
        (" 3 , GPU-8932f937-d72c ", 2, ["3", "GPU-8932f937-d72c"]),
        ("0,1,-1,2", 2, ["0", "1"]),  # CUDA ignores what follows an invalid name
        ("MIG-a,MIG-b", 1, ["MIG-a", "MIG-b"]),
        ("MIG-a,MIG-b", 0, []),
        ("0,1", 0, []),
    ],
)
def test_gpus_have_the_names_by_which_cuda_shows_them(
    variable: str | None, count: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    if variable is None:
        monkeypatch.delenv(VISIBLE, raising=False)
    else:
        monkeypatch.setenv(VISIBLE, variable)
    assert visible_gpus() == expected


@pytest.mark.usefixtures("two_gpus")
def test_by_default_there_is_a_worker_for_each_gpu() -> None:
    assert worker_count(None, "cuda") == 2
    assert worker_count(None, "cuda:1") == 1
    assert worker_count(3, "cuda") == 3


@pytest.mark.usefixtures("two_gpus")
def test_workers_share_gpus_evenly() -> None:
    assert [count_sharing(workers, "cuda") for workers in (1, 2, 3, 4)] == [1, 1, 2, 2]
    assert count_sharing(4, "cuda:1") == 4
    assert count_sharing(4, "cpu") == 1


@pytest.mark.usefixtures("two_gpus")
def test_a_named_device_is_not_divided() -> None:
    assert worker_gpus("cuda") == ["0", "1"]
    assert not worker_gpus("cuda:1")
    assert not worker_gpus("cpu")


def meet(folder: Path, workers: int) -> str | None:
    """Wait until this many processes are here, and return what GPUs this one sees."""
    (folder / str(os.getpid())).touch()
    arrived = threading.Event()
    while len(list(folder.iterdir())) < workers:
        arrived.wait(0.01)
    return os.environ.get(VISIBLE)


def test_each_worker_process_sees_one_gpu(tmp_path: Path) -> None:
    names = ["GPU-a", "7"]
    with parallel_executor(4, gpus=names) as executor:
        seen = [executor.submit(meet, tmp_path, 4) for _ in range(4)]
        assert Counter(future.result() for future in seen) == {"GPU-a": 2, "7": 2}
    assert os.environ.get(VISIBLE) not in names


def test_without_names_they_see_what_this_process_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "3,1")
    with parallel_executor(2) as executor:
        seen = [executor.submit(meet, tmp_path, 2) for _ in range(2)]
        assert [future.result() for future in seen] == ["3,1", "3,1"]
