"""Calls that several processes make as one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.distributed import in_two_processes, needs_gloo
from tests.support.launched import SECONDS, environment, free_port
from tombola.engines.distributed.job import conducted_job, in_one_job
from tombola.utils.errors import TrainingsFailed
from tombola.utils.launcher import is_first_process, launched_processes

LEAVES = """
import torch
from torch import distributed
from tombola.engines.distributed.job import conducted_job, in_one_job

def leave():
    with conducted_job().exchange():
        distributed.all_reduce(torch.ones(1), async_op=True)
        raise LookupError("not here")

in_one_job(leave)
"""


def calls(rank: int, folder: Path) -> None:
    said = []

    def note(call: Callable[[], object]) -> None:
        try:
            said.append(str(in_one_job(call)))
        except Exception as error:  # noqa: BLE001 - it is noted
            said.append(f"{type(error).__name__}: {error}")

    def fail() -> None:
        raise TrainingsFailed(["this"], 3)  # which cannot be pickled

    def interrupt() -> None:
        job = conducted_job()
        assert job is not None
        try:
            with job.exchange():
                os.kill(os.getpid(), signal.SIGINT)
                job.send(repr)  # which the others call
        except KeyboardInterrupt:
            raise ValueError("after the exchange") from None

    note(lambda: rank)
    note(lambda: in_one_job(lambda: rank))
    note(fail)
    note(interrupt)
    (folder / f"{rank}.txt").write_text("\n".join(said))


@needs_gloo
def test_all_processes_return_and_raise_what_the_first_one_does(tmp_path: Path) -> None:
    in_two_processes(calls, tmp_path)
    first, second = ((tmp_path / f"{rank}.txt").read_text().splitlines() for rank in (0, 1))
    assert first == ["0", "0", "TrainingsFailed: 1 training failed 3 times: this", "ValueError: after the exchange"]
    assert second == ["0", "0", "RuntimeError: 1 training failed 3 times: this", "ValueError: after the exchange"]


@needs_gloo
def test_no_process_waits_for_one_that_failed_in_an_operation_of_all() -> None:
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LEAVES], env=environment(rank, port), stderr=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    try:
        said = [process.communicate(timeout=SECONDS)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [1, 1]
    assert "LookupError: not here" in said[0]
    assert "another process of this job has ended" in said[1]


def test_without_a_launcher_a_call_is_made_here() -> None:
    assert launched_processes() == 1
    assert is_first_process()
    assert in_one_job(lambda: conducted_job()) is None


@pytest.mark.parametrize(("changes", "count"), [({}, 2), ({"WORLD_SIZE": "many"}, 1), ({"MASTER_PORT": ""}, 1)])
def test_a_launcher_is_known_by_its_variables(
    changes: dict[str, str], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (environment(1, 1234) | changes).items():
        monkeypatch.setenv(name, value)
    assert launched_processes() == count
    assert is_first_process() == (count == 1)
