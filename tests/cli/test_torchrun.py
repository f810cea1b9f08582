"""Commands that several processes perform together."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tests.support.distributed import needs_gloo
from tests.support.launched import SECONDS, launched, printed, statuses
from tests.support.recipes import tiny
from tombola.experiments.recipe import save_recipe

pytestmark = needs_gloo


@contextmanager
def training(folder: Path) -> Iterator[list[BaseProcess]]:
    """Two processes in a long training."""
    save_recipe(tiny(replicates=1, training__length="100000it"), folder / "long.toml")
    with launched(folder, "run", "long.toml", "--out", "out", "--checkpoint-every", "0.1") as processes:
        until = time.monotonic() + SECONDS
        while not [*folder.glob(".tombola/unfinished/*.safetensors")]:
            assert time.monotonic() < until
            time.sleep(0.05)
        yield processes


def test_the_first_process_prints_the_results(tmp_path: Path) -> None:
    save_recipe(tiny(replicates=1, search__levels=1, training__length="20it"), tmp_path / "tiny.toml")
    with launched(tmp_path, "run", "tiny.toml", "--out", "out", "--no-report") as processes:
        assert statuses(processes) == [0, 0]
    assert "distributed on 2 x cpu" in printed(tmp_path, 0)[0]
    assert printed(tmp_path, 1) == ("", "")
    assert (tmp_path / "out" / "levels.parquet").exists()


def test_invalid_input_is_one_line_of_the_first_process(tmp_path: Path) -> None:
    with launched(tmp_path, "run", "digits", "--workers", "2") as processes:
        assert statuses(processes) == [2, 2]
    out, err = printed(tmp_path, 0)
    assert out == ""
    assert err.startswith("error: workers: should be 1")
    assert printed(tmp_path, 1) == ("", "")


def test_an_interrupt_ends_both_when_the_first_has_kept_its_results(tmp_path: Path) -> None:
    with training(tmp_path) as processes:
        for process in processes:
            os.kill(process.pid or 0, signal.SIGINT)
        assert statuses(processes) == [130, 130]
    assert printed(tmp_path, 0)[1].endswith("interrupted; finished runs are kept, and the same command resumes\n")
    assert printed(tmp_path, 1) == ("", "")
    assert (tmp_path / "out" / "levels.parquet").exists()


@pytest.mark.parametrize("killed", [0, 1])
def test_no_process_waits_for_one_that_was_killed(tmp_path: Path, killed: int) -> None:
    with training(tmp_path) as processes:
        processes[killed].kill()
        assert statuses(processes)[1 - killed] == 1
    said = printed(tmp_path, 1 - killed)[1]
    assert said == "" if killed == 0 else "failed: another process of this job has ended" in said
