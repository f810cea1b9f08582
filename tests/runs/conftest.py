"""A real S3 server, and a proxy in front of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.s3_server import CREDENTIALS, Proxy, move_to, s3_server, url_of
from tombola.runs import hint_claims


@pytest.fixture(scope="session")
def server() -> Iterator[int]:
    """The port of the server."""
    pytest.importorskip("moto", reason="needs moto[server], the S3 server of these tests")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with s3_server() as port:
            yield port


@pytest.fixture
def proxy(server: int) -> Iterator[Proxy]:
    with contextlib.closing(Proxy(server)) as proxy:
        yield proxy


@pytest.fixture
def url(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of an empty store, used by a machine with an empty cache."""
    move_to(tmp_path / "first", monkeypatch)
    monkeypatch.setattr(hint_claims, "PAUSE", (0.05, 0.15))
    return url_of(proxy.port, tmp_path.name)
