"""Names of stores: folders and URLs."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from pyarrow import fs

from tests.support.errors import raises_input_error
from tombola.runs import opening, store_url
from tombola.runs.bucket import Bucket
from tombola.runs.bucket_store import BucketStore
from tombola.runs.distributed_store import DistributedBucketStore, DistributedStore
from tombola.runs.opening import open_store, shared_store
from tombola.runs.run import Run
from tombola.runs.store import Store
from tombola.runs.store_url import StoreUrl, connect, parse_url
from tombola.utils.errors import InputError


@pytest.mark.parametrize("place", ["runs", "a b/c:d", Path("runs"), "."])
def test_a_path_is_a_folder(place: str | Path) -> None:
    assert open_store(place, 7.0) == Store(Path(place), 7.0)
    assert shared_store(place) == Store(Path(place))


def test_a_file_url_is_a_folder(dense: Run, tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/a%20b")
    assert store == Store(tmp_path / "a b")
    store.check_writable()
    assert open_store(f"file://localhost{tmp_path}/a b").store_id == store.store_id is not None
    assert store.get(dense) is None


@pytest.mark.parametrize("url", ["file://server/runs", "file:runs://x", "file:///runs?region=x", "file://"])
def test_a_file_url_that_is_no_local_folder_is_refused(url: str) -> None:
    with pytest.raises(InputError):
        open_store(url)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("s3://bucket", StoreUrl("s3", "bucket")),
        ("s3://bucket//a/b/", StoreUrl("s3", "bucket", "a/b")),
        (
            "s3://bucket/a%20b?scheme=http&endpoint_override=localhost:9000",
            StoreUrl("s3", "bucket", "a b", (("endpoint_override", "localhost:9000"), ("scheme", "http"))),
        ),
        ("gs://bucket/a", StoreUrl("gs", "bucket", "a")),
        ("az://container/a?account_name=me", StoreUrl("az", "container", "a", (("account_name", "me"),))),
    ],
)
def test_urls_of_buckets_are_parsed(text: str, parsed: StoreUrl) -> None:
    assert parse_url(text) == parsed
    store = open_store(text, 7.0)
    assert isinstance(store, BucketStore)
    assert store.bucket == Bucket(parsed)
    assert store.checkpoint_every == 7.0
    assert parse_url(store.place) == parsed
    assert open_store(store.place) == open_store(text)
    assert open_store(text).folder != open_store(f"{text.partition('?')[0]}/other").folder


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIASECRET:topsecret@bucket/prefix",
        "s3://topsecret@bucket",
        "s3://bucket/prefix?access_key=a&secret_key=topsecret",
        "s3://bucket?topsecret",
        "az://container?sas_token=topsecret",
        "az://container?account_key=topsecret",
        "gs://bucket?access_token=topsecret",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_shown(url: str) -> None:
    with pytest.raises(InputError) as raised:
        open_store(url)
    assert "SECRET" not in str(raised.value).upper()
    assert "credentials" in str(raised.value)


@pytest.mark.parametrize(
    "url", ["http://host/x", "hdfs://host/x", "s3://", "s3:///prefix", "s3://bucket/../other", "://"]
)
def test_other_urls_are_refused(url: str) -> None:
    with raises_input_error("s3://"):
        open_store(url)


def test_a_url_that_was_made_a_path_is_refused() -> None:
    with raises_input_error("string"):
        open_store(Path("s3://bucket/prefix"))


@pytest.mark.parametrize("url", ["s3:/bucket/prefix", "file:/folder", "az:/container"])
def test_a_url_that_lacks_a_slash_is_refused(url: str) -> None:
    with raises_input_error("://"):
        open_store(url)


@pytest.mark.parametrize("url", ["file://user:topsecret@server/runs", "s3:/user:topsecret@bucket"])
def test_what_may_be_a_password_is_not_shown(url: str) -> None:
    with pytest.raises(InputError) as raised:
        open_store(url)
    assert "topsecret" not in str(raised.value)


def test_each_process_of_a_distributed_job_has_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "is_distributed", lambda: True)
    monkeypatch.setattr(opening.distributed, "get_rank", lambda: 3)
    assert shared_store("runs") == DistributedStore(Path("runs/process-3"))
    store = shared_store("s3://bucket/runs?region=x")
    assert isinstance(store, DistributedBucketStore)
    assert store.place == "s3://bucket/runs/process-3?region=x"
    assert pickle.loads(pickle.dumps(store)) == store


def test_buckets_of_all_kinds_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:1")
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT", raising=False)
    assert isinstance(connect(parse_url("s3://bucket/opened")), fs.S3FileSystem)
    assert isinstance(connect(parse_url("gs://bucket/opened?endpoint_override=localhost:1")), fs.GcsFileSystem)
    with raises_input_error("AZURE_STORAGE_ACCOUNT"):
        connect(parse_url("az://container/opened"))
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "me")
    monkeypatch.setattr(store_url, "_PROBE", "")
    azure = connect(parse_url("az://container/opened"))
    assert isinstance(azure, fs.AzureFileSystem)
    assert azure == connect(parse_url("az://container/opened?account_name=me"))
    with raises_input_error("scheme"):
        connect(parse_url("s3://bucket?scheme=ftp&region=x"))


def test_a_provider_that_ends_the_process_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_url, "_PROBE", "import os; os.abort()")
    with raises_input_error("credentials"):
        connect(parse_url("az://container/aborts?account_name=aborts"))


def test_an_older_pyarrow_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(fs, "AzureFileSystem")
    with raises_input_error("pyarrow"):
        connect(parse_url("az://container/older?account_name=me"))
