from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tombola.utils import processes
from tombola.utils.processes import has_ended, process_name


def test_this_process_has_not_ended() -> None:
    host, _, number = process_name().partition(".")
    assert number == str(os.getpid())
    assert len(host) == 8
    assert not has_ended(process_name())


def test_a_process_ends() -> None:
    host = process_name().partition(".")[0]
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert not has_ended(f"{host}.{process.pid}")
    assert has_ended(f"{host}.{process.pid}")


def test_machines_of_one_name_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    monkeypatch.setattr(processes, "BOOT", tmp_path / "boot_id")
    hosts: set[str] = set()
    for boot in ("one", "another", None):
        (tmp_path / "boot_id").unlink() if boot is None else (tmp_path / "boot_id").write_text(boot)
        processes._host.cache_clear()
        here = process_name().partition(".")[0]
        assert has_ended(f"{here}.{process.pid}")
        assert not any(has_ended(f"{host}.{process.pid}") for host in hosts)
        hosts.add(here)
    assert len(hosts) == 3
    processes._host.cache_clear()


@pytest.mark.parametrize("name", ["01234567.1", "", ".", "x", "01234567.99999999"])
def test_of_other_machines_nothing_is_known(name: str) -> None:
    assert not has_ended(name)


@pytest.mark.parametrize("number", ["", "x", "1.2", "-1", "²"])
def test_what_is_no_process_has_not_ended(number: str) -> None:
    assert not has_ended(f"{process_name().partition('.')[0]}.{number}")
