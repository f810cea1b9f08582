"""The server answers requests of this machine's browsers that read the report, and no others."""

from __future__ import annotations

import http.client
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tombola.report.watch.server import WatchServer
from tombola.utils.errors import InputError

Serve = Callable[[Path], WatchServer]


def ask(server: WatchServer, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    answer = response.status, dict(response.getheaders()), response.read()
    connection.close()
    return answer


def test_the_report_is_served_and_made_again_when_the_folder_changes(results: Path, serve: Serve) -> None:
    server = serve(results)
    _, headers, body = ask(server, "/progress.json")
    progress = json.loads(body)
    assert (progress["state"], progress["done"], progress["expected"]) == ("finished", 21, 21)
    assert ask(server, "/progress.json", If_None_Match=headers["ETag"])[::2] == (304, b"")
    status, headers, page = ask(server, "/page.html")
    assert status == 200
    assert b'id="verdict-dense"' in page
    assert b'class="static"' not in page  # pictures take long to draw
    assert ask(server, "/page.html", "HEAD")[1:] == (headers | ask(server, "/page.html", "HEAD")[1], b"")
    server.page()
    (results / "levels.parquet").write_bytes(b"damaged")
    for _ in range(2):  # also where it is made at most so often
        assert json.loads(ask(server, "/progress.json")[2])["state"] == "finished"


def test_files_of_the_folder_are_downloads_and_others_are_not_read(
    results: Path, serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret")
    (results / "report.html").symlink_to(tmp_path / "secret")
    (results / "notes.txt").write_text("secret")
    server = serve(results)
    status, headers, body = ask(server, "/levels.parquet")
    assert (status, headers["Content-Disposition"]) == (200, "attachment")
    assert body == (results / "levels.parquet").read_bytes()
    for path in ("/notes.txt", "/report.html", "/../secret", "/%2e%2e/secret", "/shipped/../notes.txt", "//secret"):
        status, _, body = ask(server, path)
        assert (status, b"secret" in body) == (404, False)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1"])
def test_other_names_are_refused(finished: Path, serve: Serve, host: str) -> None:
    assert ask(serve(finished), "/", Host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:9000", "[::1]:9000"])
def test_a_tunnel_may_have_another_port(finished: Path, serve: Serve, host: str) -> None:
    assert ask(serve(finished), "/", Host=host)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_only_reading_is_allowed(finished: Path, serve: Serve, method: str) -> None:
    status, headers, _ = ask(serve(finished), "/", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_a_busy_port_is_named_and_the_default_one_is_replaced(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = serve(tmp_path).server_port
    with pytest.raises(InputError, match=f"--port: {busy} cannot be used"):
        WatchServer(tmp_path, busy)
    monkeypatch.setattr("tombola.report.watch.server.PORT", busy)
    with WatchServer(tmp_path) as other:
        assert other.server_port != busy
        assert other.server_address[0] == "127.0.0.1"


def test_an_experiment_that_has_not_begun_or_cannot_be_read_is_named(results: Path, serve: Serve) -> None:
    server = serve(results.parent / "later")
    assert json.loads(ask(server, "/progress.json")[2])["state"] == "waiting"
    assert b"no experiment yet" in ask(server, "/page.html")[2]
    shutil.copytree(results, results.parent / "later")
    assert json.loads(ask(server, "/progress.json")[2])["state"] == "finished"
    (results.parent / "later" / "experiment.toml").write_text("=")
    assert "experiment.toml" in json.loads(ask(server, "/progress.json")[2])["error"]
