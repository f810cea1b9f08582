"""A real S3 server in a process of its own (moto's), and a proxy in front of it that counts, delays and breaks."""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from tombola.runs import bucket_store
from tombola.runs.bucket_store import BucketStore
from tombola.runs.run import Run

BUCKET = "tombola"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIATESTKEYID", "AWS_SECRET_ACCESS_KEY": "a-secret-that-must-not-be-shown"}


def file_system(port: int) -> fs.S3FileSystem:
    return fs.S3FileSystem(
        endpoint_override=f"127.0.0.1:{port}", scheme="http", region="us-east-1", allow_bucket_creation=True
    )


def url_of(port: int, prefix: str, bucket: str = BUCKET) -> str:
    return f"s3://{bucket}/{prefix}?endpoint_override=127.0.0.1:{port}&region=us-east-1&scheme=http"


def move_to(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on with another cache, as on another machine."""
    monkeypatch.setattr(bucket_store.platformdirs, "user_cache_path", lambda _: machine)


def objects(store: BucketStore, folder: str = "") -> list[str]:
    """The names of the objects in a store."""
    return sorted(entry.name for entry in store.bucket.list(folder))


def entry_of(run: Run) -> str:
    """The name of an outcome."""
    return f"runs/{run.key[:2]}/{run.key}.safetensors"


@contextlib.contextmanager
def s3_server() -> Iterator[int]:
    """The port of a server with an empty bucket."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port)
            file_system(port).create_dir(BUCKET)
            yield port
        finally:
            process.kill()


def _wait_for(port: int) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return


class Proxy:
    """Hands requests on to a server, unless it is told to fail."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.requests: list[str] = []
        """Methods and paths."""
        self.faults: list[str] = []
        """What happens to the next requests: `reset`, `hang`, `503`, `403`, or `pass`."""
        self.always: str = "pass"
        """What happens to further ones."""
        self.delay = 0.0
        """Seconds before each request."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def taken(self) -> list[str]:
        """The methods of the requests since the last call."""
        methods = [request.split()[0] for request in self.requests]
        self.requests.clear()
        return methods

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


ERRORS = {"503": (503, "SlowDown"), "403": (403, "AccessDenied")}


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            content = self._content()
            proxy.requests.append(f"{self.command} {self.path}")
            time.sleep(proxy.delay)
            fault = proxy.faults.pop(0) if proxy.faults else proxy.always
            if fault == "hang":
                time.sleep(5)
                self.close_connection = True
            elif fault == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
            elif fault in ERRORS:
                status, code = ERRORS[fault]
                self._answer(status, {}, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())
            else:
                self._hand_on(content)

        def _content(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def _hand_on(self, content: bytes) -> None:
            there = http.client.HTTPConnection("127.0.0.1", proxy.target)
            ours = {"expect", "transfer-encoding", "content-length"}
            headers = {name: value for name, value in self.headers.items() if name.lower() not in ours}
            there.request(self.command, self.path, content, headers | {"Content-Length": str(len(content))})
            answer = there.getresponse()
            self._answer(answer.status, dict(answer.getheaders()), answer.read())
            there.close()

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
            for name, value in headers.items():
                if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

        def log_message(self, *_: Any) -> None:
            pass

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # it was reset
                super().handle()

    return Handler
