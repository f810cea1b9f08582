"""A web server for this machine alone: the report of one results folder, and how far its experiment is."""

from __future__ import annotations

import gzip
import json
import logging
import os
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tombola.experiments.file_names import CONFIGURATION
from tombola.exports.artefact_files import FILES
from tombola.utils.errors import InputError

log = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
HOSTS = {ADDRESS, "localhost", "::1"}
"""What a browser may call this machine. Any other name that leads here is refused, because the page of another site
could read what it gets from its own name (DNS rebinding). Ports differ behind a tunnel."""

PORT = 8642
"""Used unless it is busy."""

ASSETS = {"/": ("watch.html", "text/html"), "/watch.css": ("watch.css", "text/css")} | {
    "/watch.js": ("watch.js", "text/javascript")
}
"""The file and its type, by path."""

TABLES = ("levels.parquet", "layers.parquet", "curves.parquet", "stability.parquet")
SHIPPED = tuple(f"shipped/{name}" for name in (*FILES.values(), "measured.json"))
DOWNLOADS = {f"/{name}": name for name in ("ticket.safetensors", "report.html", CONFIGURATION, *TABLES, *SHIPPED)}
"""The files of the results folder to which a report may link, by path. No others are read."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Of the page around the report, which has its own policy."""

Headers = dict[str, str]


class WatchServer(ThreadingHTTPServer):
    """Serves the report of the experiment in `folder`."""

    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # elsewhere two servers could then have the same port

    def __init__(self, folder: Path, port: int | None = None) -> None:
        """Without a `port`, it is `PORT` or, if that is busy, any other. Raises `InputError` if `port` is busy."""
        self.folder = folder
        self.page: Callable[[], str] = str
        self.progress: Callable[[], dict[str, Any]] = dict
        try:
            self._listen(PORT if port is None else port)
        except OSError as error:
            if port is not None:
                raise InputError(f"--port: {port} cannot be used: {error.strerror}; choose another") from error
            self._listen(0)

    def _listen(self, port: int) -> None:
        super().__init__((ADDRESS, port), WatchHandler)

    def server_bind(self) -> None:
        """Bind the socket; the inherited method also looks up a name of the address, which may take long."""
        socket.socket.bind(self.socket, self.server_address)
        self.server_name, self.server_port = self.server_address = self.socket.getsockname()

    @property
    def url(self) -> str:
        """Of the page."""
        return f"http://{ADDRESS}:{self.server_port}/"

    def prepare(self) -> None:
        """Import what makes the report, which takes seconds. Browsers that connect before that wait."""
        from tombola.report.watch.watched_experiment import read_progress
        from tombola.report.watch.watched_page import WatchedPage

        page = WatchedPage(self.folder)
        self.page = lambda: page.html
        self.progress = lambda: {"version": page.version, **asdict(read_progress(self.folder))}

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Log errors other than those of connections, which browsers close at any time."""
        if not isinstance(error := sys.exception(), OSError):
            log.error("the report of %s could not be sent: %r", self.folder, error)


class WatchHandler(BaseHTTPRequestHandler):
    """Answers requests, of which none changes anything."""

    server: WatchServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "tombola", ""
    timeout = 60.0  # of connections that are idle

    def do_GET(self) -> None:
        """Answer a request."""
        path = urlsplit(self.path).path
        if not self._is_for_this_machine():
            self._send(b"this name does not belong to this machine\n", status=HTTPStatus.FORBIDDEN)
        elif path in ASSETS:
            name, kind = ASSETS[path]
            self._send(_asset(name), kind, {"Content-Security-Policy": POLICY})
        elif path == "/page.html":
            framed = {"Content-Security-Policy": "frame-ancestors 'self'"}
            self._send(self.server.page().encode(), "text/html", framed)
        elif path == "/progress.json":
            self._send_progress()
        elif path in DOWNLOADS:
            self._send_file(self.server.folder / DOWNLOADS[path])
        else:
            self._send(b"not found\n", status=HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self.close_connection = True  # the body of the request is not read
        self._send(b"only GET and HEAD\n", headers={"Allow": "GET, HEAD"}, status=HTTPStatus.METHOD_NOT_ALLOWED)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse

    def _is_for_this_machine(self) -> bool:
        try:
            return urlsplit(f"//{self.headers.get('Host', '')}").hostname in HOSTS
        except ValueError:
            return False

    def _send_progress(self) -> None:
        try:
            body = json.dumps(self.server.progress()).encode()
        except InputError as error:
            body = json.dumps({"error": str(error)}).encode()
        tag = f'"{sha256(body).hexdigest()[:16]}"'
        unchanged = self.headers.get("If-None-Match") == tag
        status = HTTPStatus.NOT_MODIFIED if unchanged else HTTPStatus.OK
        self._send(b"" if unchanged else body, "application/json", {"ETag": tag}, status)

    def _send_file(self, path: Path) -> None:
        """A file, unless it is a link that leads out of the folder."""
        try:
            inside = path.resolve(strict=True).is_relative_to(self.server.folder.resolve())
            file = path.open("rb") if inside and path.is_file() else None
        except OSError:
            file = None
        if file is None:
            self._send(b"not found\n", status=HTTPStatus.NOT_FOUND)
            return
        with file:
            length = os.fstat(file.fileno()).st_size
            self._begin(HTTPStatus.OK, "application/octet-stream", length, {"Content-Disposition": "attachment"})
            if self.command != "HEAD":
                shutil.copyfileobj(file, self.wfile)

    def _send(
        self,
        body: bytes,
        kind: str = "text/plain",
        headers: Headers | None = None,
        status: HTTPStatus = HTTPStatus.OK,
    ) -> None:
        extra = dict(headers or {})
        if len(body) > 10_000 and "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, compresslevel=1)  # a tunnel may be slow
            extra["Content-Encoding"] = "gzip"
        self._begin(status, f"{kind}; charset=utf-8", len(body), extra)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin(self, status: HTTPStatus, kind: str, length: int, headers: Headers) -> None:
        self.send_response(status)
        common = {
            "Content-Type": kind,
            "Content-Length": str(length),
            "Cache-Control": "no-cache",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
        }
        for name, value in (common | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""


def _asset(name: str) -> bytes:
    return resources.files("tombola.report.watch").joinpath(name).read_bytes()
