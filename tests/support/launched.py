"""The `tombola` command in two processes, started as torchrun starts them."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.support.distributed import forkserver, heed_interrupts

SECONDS = 120
"""Until a process that does not end fails a test."""


def free_port() -> int:
    """A port at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def environment(rank: int, port: int) -> dict[str, str]:
    """The environment that torchrun gives to a process of two on this machine."""
    launcher = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    return {**os.environ, **launcher, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


@contextmanager
def launched(folder: Path, *arguments: str) -> Iterator[list[BaseProcess]]:
    """Two processes with this command in this folder, which print to `RANK.out` and `RANK.err` there. They are killed
    after the block."""
    port = free_port()
    processes = [forkserver().Process(target=_command, args=(rank, port, folder, arguments)) for rank in (0, 1)]
    try:
        for process in processes:
            process.start()
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.join()


def _command(rank: int, port: int, folder: Path, arguments: Sequence[str]) -> None:
    os.chdir(folder)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{rank}.{name}", os.O_WRONLY | os.O_CREAT), number)
    os.environ |= environment(rank, port)
    heed_interrupts()
    sys.argv = ["tombola", *arguments]

    from tombola.cli import main

    main()


def statuses(processes: Sequence[BaseProcess]) -> list[int | None]:
    """The exit statuses, when all have ended."""
    for process in processes:
        process.join(SECONDS)
    return [process.exitcode for process in processes]


def printed(folder: Path, rank: int) -> tuple[str, str]:
    """What a process printed to standard output and error."""
    return (folder / f"{rank}.out").read_text(), (folder / f"{rank}.err").read_text()
