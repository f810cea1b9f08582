"""Servers in a thread of the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread

import pytest

from tombola.report.watch.server import WatchServer


@contextmanager
def serving(folder: Path) -> Iterator[WatchServer]:
    with WatchServer(folder, 0) as server:
        server.prepare()
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[[Path], WatchServer]]:
    """Serves the report of a folder until the test ends."""
    with ExitStack() as stack:
        yield lambda folder: stack.enter_context(serving(folder))
