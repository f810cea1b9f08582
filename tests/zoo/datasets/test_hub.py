from __future__ import annotations

import builtins
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.zoo.datasets.pictures import small
from tombola.utils.errors import InputError
from tombola.zoo import datasets as zoo
from tombola.zoo.datasets.columns import Columns
from tombola.zoo.datasets.registry import load

hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

SHA = {"main": "a" * 40, "refs/convert/parquet": "b" * 40}


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as a download needs: one folder for each data set and revision."""

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
    """A folder `owner/name/revision` of which is a data set on a hub of our own."""
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


def test_a_data_set_is_downloaded_and_kept(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x_train, _ = small(served / "someone" / "flowers" / "main" / "data", 3, 4, 4)
    (served / "someone" / "flowers" / "main" / "README.md").write_text("flowers")
    first = load("hf:someone/flowers")
    np.testing.assert_array_equal(first.x_train, x_train)
    fetched = [path.name for path in (tmp_path / "hub-cache").rglob("*") if path.is_file()]
    assert "README.md" not in fetched
    redirect(monkeypatch, "http://127.0.0.1:9", tmp_path)  # nobody is there
    zoo._hub.cache_clear()
    assert load("hf:someone/flowers", columns=Columns(size=4)).digest == first.digest


def test_one_of_several_configurations_is_named(served: Path) -> None:
    small(served / "someone" / "flowers" / "main" / "large", 3, 8, 8)
    small(served / "someone" / "flowers" / "main" / "tiny", 3, 4, 4)
    assert load("hf:someone/flowers/tiny").inputs == (3, 4, 4)
    with pytest.raises(InputError) as caught:
        load("hf:someone/flowers")
    assert str(caught.value) == (
        "hf:someone/flowers: several sub-folders have train-*.parquet (large, tiny); set data.name to one, as in "
        "hf:someone/flowers/large"
    )


def test_without_a_network_one_of_several_configurations_is_named_too(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("large", "tiny"):
        small(served / "someone" / "flowers" / "main" / name, 3, 4, 4)
    for name in ("large", "tiny"):
        load(f"hf:someone/flowers/{name}")
    redirect(monkeypatch, "http://127.0.0.1:9", tmp_path)
    zoo._hub.cache_clear()
    assert load("hf:someone/flowers/tiny").inputs == (3, 4, 4)
    with pytest.raises(InputError) as caught:
        load("hf:someone/flowers")
    assert str(caught.value) == (
        "hf:someone/flowers: several sub-folders have train-*.parquet (large, tiny); set data.name to one, as in "
        "hf:someone/flowers/large"
    )


@pytest.mark.parametrize("harm", ["interrupted", "removed", "spoilt"])
def test_without_a_network_an_incomplete_download_is_refused(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path, harm: str
) -> None:
    whole = served / "someone" / "flowers" / "main"
    small(whole, 3, 4, 4)
    for part in ("train", "test"):
        (whole / part).mkdir()
        (whole / f"{part}-00000-of-00001.parquet").rename(whole / part / "0000.parquet")
    another = (whole / "train" / "0000.parquet").read_bytes()
    if harm == "interrupted":  # the first file came, the second did not
        hub.snapshot_download("someone/flowers", repo_type="dataset")
    (whole / "train" / "0001.parquet").write_bytes(another)
    if harm != "interrupted":
        assert len(load("hf:someone/flowers").y_train) == 24
        zoo._hub.cache_clear()
        (kept,) = (cache / "hub" / "someone" / "flowers").iterdir()
        if harm == "removed":
            (path,) = (tmp_path / "hub-cache").rglob("snapshots/*/train/0001.parquet")
            path.unlink()
        else:
            kept.write_text("{}")
    redirect(monkeypatch, "http://127.0.0.1:9", tmp_path)
    with pytest.raises(InputError) as caught:
        load("hf:someone/flowers")
    message = str(caught.value)
    assert message.startswith("hf:someone/flowers could not be downloaded from Hugging Face's hub: ")
    assert message.endswith("; of what came earlier train/0001.parquet is missing") == (harm == "removed")
    assert "\n" not in message


def test_what_the_hub_converted_is_taken_where_the_data_set_has_no_such_files(served: Path) -> None:
    whole = served / "someone" / "flowers"
    (whole / "main").mkdir(parents=True)
    (whole / "main" / "flowers.zip").write_text("zip")
    with pytest.raises(
        InputError, match=r"^there is no train-\*\.parquet and test-\*\.parquet in hf:someone/flowers$"
    ):
        load("hf:someone/flowers")
    x_train, _ = small(whole / "made", 3, 4, 4)
    for part in ("train", "test"):
        folder = whole / "refs-convert-parquet" / "default" / part
        folder.mkdir(parents=True)
        (whole / "made" / f"{part}-00000-of-00001.parquet").rename(folder / "0000.parquet")
    np.testing.assert_array_equal(load("hf:someone/flowers").x_train, x_train)


@pytest.mark.usefixtures("served")
def test_a_data_set_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError) as caught:
        load("hf:someone/nothing")
    assert str(caught.value) == (
        "there is no data set someone/nothing on Hugging Face's hub, or not for you: if it is private or gated, log "
        "in with `hf auth login`"
    )


def test_without_a_network_the_error_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    redirect(monkeypatch, "http://127.0.0.1:9", tmp_path)
    with pytest.raises(InputError) as caught:
        load("hf:someone/flowers")
    assert str(caught.value).startswith("hf:someone/flowers could not be downloaded from Hugging Face's hub: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["hf:", "hf:mnist", "hf:a/b/c/d", "hf:a//b"])
def test_names_of_another_form_are_refused(name: str) -> None:
    with pytest.raises(InputError) as caught:
        load(name)
    assert str(caught.value) == f'data.name: should be hf:owner/name or hf:owner/name/configuration, not "{name}"'


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "huggingface_hub":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError) as caught:
        load("hf:someone/flowers")
    assert str(caught.value) == '"hf:someone/flowers" needs huggingface_hub: pip install "tombola[hub]"'
