from __future__ import annotations

import hashlib
import http.server
import json
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.datasets import write_dataset
from tests.support.errors import raises_input_error
from tombola.zoo import datasets
from tombola.zoo.datasets import load
from tombola.zoo.datasets.parquet_columns import Columns

hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

SHA = {"main": "a" * 40, "refs/convert/parquet": "b" * 40}


class Hub(http.server.BaseHTTPRequestHandler):
    """The parts of the hub's API that a download needs; `folder` has a folder for each dataset and revision."""

    folder: Path

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.replace("%2F", "/").partition("?")[0]
        info = re.fullmatch(r"/api/datasets/(\w+/\w+)(?:/revision/(.+))?", path)
        tree = re.fullmatch(r"/api/datasets/(\w+/\w+)/tree/(\w+)/?", path)
        file = re.fullmatch(r"/datasets/(\w+/\w+)/resolve/(\w+)/(.+)", path)
        if info:
            revision = info[2] or "main"
            self.info(info[1], revision if revision in SHA else self.named(revision))
        elif tree:
            folder = self.folder / tree[1] / self.named(tree[2]).replace("/", "-")
            self.say(
                [{"type": "file", "path": name, "size": len(text), "oid": "c" * 40} for name, text in files(folder)]
            )
        elif file:
            folder = self.folder / file[1] / self.named(file[2]).replace("/", "-")
            self.send(200, (folder / file[3]).read_bytes(), file[2])
        else:
            self.send(404, b"{}", error="EntryNotFound")

    def named(self, sha: str) -> str:
        return next(name for name, each in SHA.items() if each == sha)

    def info(self, repository: str, revision: str) -> None:
        folder = self.folder / repository / revision.replace("/", "-")
        if not folder.parent.is_dir():
            self.send(404, b"{}", error="RepoNotFound")
        elif not folder.is_dir():
            self.send(404, b"{}", error="RevisionNotFound")
        else:
            siblings = [{"rfilename": name} for name, _ in files(folder)]
            self.say({"id": repository, "sha": SHA[revision], "siblings": siblings})

    def say(self, value: object) -> None:
        self.send(200, json.dumps(value).encode())

    def send(self, status: int, content: bytes, commit: str = "", error: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()[:40]}"')
        if commit:
            self.send_header("X-Repo-Commit", commit)
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def files(folder: Path) -> list[tuple[str, bytes]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in paths]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose folders `owner/name/revision` are datasets on a local hub."""
    folder = tmp_path / "hub"
    folder.mkdir()
    handler = type("Served", (Hub,), {"folder": folder})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        redirect(monkeypatch, f"http://127.0.0.1:{running.server_port}", tmp_path)
        yield folder
        running.shutdown()
        thread.join()


def redirect(monkeypatch: pytest.MonkeyPatch, endpoint: str, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))


def test_a_dataset_is_downloaded_and_then_loads_offline(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x_train, _ = write_dataset(served / "someone" / "flowers" / "main" / "data", 3, 4, 4)
    (served / "someone" / "flowers" / "main" / "README.md").write_text("flowers")
    first = load("hf:someone/flowers")
    np.testing.assert_array_equal(first.x_train, x_train)
    fetched = [path.name for path in (tmp_path / "hub-cache").rglob("*") if path.is_file()]
    assert "README.md" not in fetched
    redirect(monkeypatch, "http://127.0.0.1:9", tmp_path)
    datasets._load.cache_clear()
    assert load("hf:someone/flowers", columns=Columns(size=4)).digest == first.digest


def test_one_of_several_configurations_must_be_named(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(served / "someone" / "flowers" / "main" / "large", 3, 8, 8)
    write_dataset(served / "someone" / "flowers" / "main" / "tiny", 3, 4, 4)
    facts = ("hf:someone/flowers", "large, tiny", "data.name", "hf:someone/flowers/large")
    with raises_input_error(*facts):
        load("hf:someone/flowers")
    assert load("hf:someone/flowers/large").inputs == (3, 8, 8)
    assert load("hf:someone/flowers/tiny").inputs == (3, 4, 4)
    redirect(monkeypatch, "http://127.0.0.1:9", tmp_path)  # without a network
    datasets._load.cache_clear()
    assert load("hf:someone/flowers/tiny").inputs == (3, 4, 4)
    with raises_input_error(*facts):
        load("hf:someone/flowers")


def test_a_list_of_files_that_cannot_be_written_is_no_error(served: Path, cache: Path) -> None:
    write_dataset(served / "someone" / "flowers" / "main", 3, 4, 4)
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text("a file instead of a folder")
    assert len(load("hf:someone/flowers").y_train) == 12


@pytest.mark.parametrize("damage", ["interrupted", "file removed", "list invalid"])
def test_without_a_network_an_incomplete_download_is_refused(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path, damage: str
) -> None:
    published = served / "someone" / "flowers" / "main"
    write_dataset(published, 3, 4, 4)
    for part in ("train", "test"):
        (published / part).mkdir()
        (published / f"{part}-00000-of-00001.parquet").rename(published / part / "0000.parquet")
    if damage == "interrupted":  # after the first file
        hub.snapshot_download("someone/flowers", repo_type="dataset")
    (published / "train" / "0001.parquet").write_bytes((published / "train" / "0000.parquet").read_bytes())
    if damage != "interrupted":
        assert len(load("hf:someone/flowers").y_train) == 24
        datasets._load.cache_clear()
    if damage == "file removed":
        (path,) = (tmp_path / "hub-cache").rglob("snapshots/*/train/0001.parquet")
        path.unlink()
    elif damage == "list invalid":
        (path,) = (cache / "hub" / "someone" / "flowers").iterdir()
        path.write_text("{}")
    redirect(monkeypatch, "http://127.0.0.1:9", tmp_path)
    facts = ["train/0001.parquet"] if damage == "file removed" else []
    with raises_input_error("hf:someone/flowers", "could not be downloaded", *facts):
        load("hf:someone/flowers")


def test_files_converted_by_the_hub_are_used_if_there_are_no_others(served: Path) -> None:
    published = served / "someone" / "flowers"
    (published / "main").mkdir(parents=True)
    (published / "main" / "flowers.zip").write_text("zip")
    with raises_input_error("hf:someone/flowers", "train-*.parquet", "test-*.parquet"):
        load("hf:someone/flowers")
    x_train, _ = write_dataset(published / "made", 3, 4, 4)
    for part in ("train", "test"):
        folder = published / "refs-convert-parquet" / "default" / part
        folder.mkdir(parents=True)
        (published / "made" / f"{part}-00000-of-00001.parquet").rename(folder / "0000.parquet")
    np.testing.assert_array_equal(load("hf:someone/flowers").x_train, x_train)


@pytest.mark.usefixtures("served")
def test_a_missing_or_private_dataset_is_named() -> None:
    with raises_input_error("someone/nothing", "hf auth login"):
        load("hf:someone/nothing")


def test_without_a_network_and_a_download_the_dataset_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirect(monkeypatch, "http://127.0.0.1:9", tmp_path)
    with raises_input_error("hf:someone/flowers", "could not be downloaded"):
        load("hf:someone/flowers")


@pytest.mark.parametrize("name", ["hf:", "hf:mnist", "hf:a/b/c/d", "hf:a//b"])
def test_invalid_names_are_refused(name: str) -> None:
    with raises_input_error("data.name", "hf:owner/name/configuration", f'"{name}"'):
        load(name)


def test_without_the_extra_its_installation_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with raises_input_error('"hf:someone/flowers"', 'pip install "tombola[hub]"'):
        load("hf:someone/flowers")
