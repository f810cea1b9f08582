"""`tombola watch`."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.support.command_line import run, tombola
from tombola.report.watch.server import WatchServer


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_address_is_printed_and_ctrl_c_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WatchServer, "serve_forever", _interrupted)
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    for folder in ("later", "."):
        if folder == ".":
            (tmp_path / "tiny.toml").unlink()
        result = tombola("watch", folder, "--port", "0")
        assert (result.exit_code, result.stderr) == (0, "")
        assert "http://127.0.0.1:" in result.stdout
    assert opened == []  # there is no terminal
    assert tombola("watch", "later", "--port", "0", "--browser").exit_code == 0
    assert opened[0].startswith("http://127.0.0.1:")


@pytest.mark.usefixtures("_fake_engine")
def test_what_cannot_be_watched_is_one_line(tmp_path: Path) -> None:
    run("--out", "results/tiny")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, facts in (
            (("tiny.toml",), ["tiny.toml", "file"]),
            (("results",), ["results", "experiment.toml", "results/tiny"]),
            (("later", "--port", port), ["--port", port]),
        ):
            result = tombola("watch", *arguments)
            assert result.exit_code == 2
            assert result.stderr.count("\n") == 1
            assert all(fact in result.stderr for fact in facts), result.stderr
    assert (tmp_path / "results" / "tiny" / "experiment.toml").exists()
