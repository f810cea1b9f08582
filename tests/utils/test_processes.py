from __future__ import annotations

import os
import subprocess
import sys

import pytest

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


@pytest.mark.parametrize("name", ["01234567.1", "", ".", "x", "01234567.99999999"])
def test_of_other_machines_nothing_is_known(name: str) -> None:
    assert not has_ended(name)


@pytest.mark.parametrize("number", ["", "x", "1.2", "-1", "²"])
def test_what_is_no_process_has_not_ended(number: str) -> None:
    assert not has_ended(f"{process_name().partition('.')[0]}.{number}")
