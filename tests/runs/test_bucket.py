"""What fails between this machine and a real S3 server, and that no object is ever there in part."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.command_line import tombola
from tests.support.errors import raises_input_error
from tests.support.outcomes import outcome_of
from tests.support.s3_server import BUCKET, CREDENTIALS, Proxy, url_of
from tombola.runs import store_url
from tombola.runs.bucket import Bucket, _reason
from tombola.runs.bucket_store import BucketStore
from tombola.runs.run import Run
from tombola.runs.store_url import parse_url
from tombola.utils.errors import InputError


@pytest.mark.parametrize("fault", ["503", "reset"])
def test_passing_failures_are_tried_again(dense: Run, url: str, proxy: Proxy, fault: str) -> None:
    store = BucketStore.at(url)
    proxy.faults = [fault]
    store.put(dense, outcome_of(dense))
    store._entry(dense.key).unlink()
    proxy.faults = [fault, "pass", fault]
    assert store.get(dense) is not None
    assert proxy.taken() == ["PUT", "PUT", "HEAD", "HEAD", "GET", "GET"]


def test_a_server_that_hangs_is_asked_again(
    dense: Run, url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_url, "TIMEOUT", 1.0)
    proxy.faults = ["hang"]
    assert BucketStore.at(url).get(dense, fresh=True) is None
    assert proxy.taken() == ["HEAD", "HEAD"]


def test_a_put_that_fails_in_the_middle_leaves_no_part_of_an_object(
    url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_url, "ATTEMPTS", 1)
    bucket = Bucket(parse_url(url))
    proxy.faults = ["pass", "pass", "403"]  # the second part
    with raises_input_error(f"s3://{BUCKET}"):
        bucket.put("large", b"x" * 12_000_000)
    assert proxy.faults == []
    gc.collect()  # a stream that is lost is closed
    assert bucket.get("large") is None
    assert bucket.list("") == []


@pytest.mark.parametrize("fault", ["503", "reset", "403"])
def test_lasting_failures_are_one_line_without_credentials(
    dense: Run, url: str, proxy: Proxy, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_url, "ATTEMPTS", 1)
    store = BucketStore.at(url)
    proxy.always = fault
    for use in (store.check_writable, lambda: store.get(dense), lambda: store.claims().try_add([dense.key])):
        with pytest.raises(InputError, match=re.escape(f"s3://{BUCKET}")) as raised:
            use()
        assert "\n" not in str(raised.value)
        assert not any(secret in str(raised.value) for secret in CREDENTIALS.values())
        assert ("access is denied" in str(raised.value)) == (fault == "403")
    assert store.store_id is None


@pytest.mark.parametrize("fault", ["503", "403"])
def test_a_failure_is_not_explained_by_the_names_of_objects(
    url: str, proxy: Proxy, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_url, "ATTEMPTS", 1)
    bucket = Bucket(parse_url(url.replace("?", "/tokenizer's/permission'/403/NO_SUCH_BUCKET?")))
    proxy.always = fault
    for use in (lambda: bucket.put("id", b"x"), lambda: bucket.get("id"), lambda: bucket.list("runs")):
        with raises_input_error("access is denied" if fault == "403" else "cannot be reached"):
            use()


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("google::cloud::Status(UNAVAILABLE: Permanent error in GetObjectMetadata 'bucket/tokenizer/id')", "reached"),
        ("google::cloud::Status(PERMISSION_DENIED: no 'bucket/tokenizer/id')", "denied"),
        ("Bucket 'bucket' not found", "no such bucket"),
        ("timeout for bucket/tokenizer/id", "reached"),
        ("AuthenticationFailed for https://account.host/bucket/id", "denied"),
    ],
)
def test_reasons_of_other_providers_are_told(message: str, reason: str) -> None:
    assert reason in _reason(OSError(message), parse_url("gs://bucket/tokenizer"))


def test_azure_without_credentials_is_one_line(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AZURE")}
    environment |= {"PATH": "", "HOME": str(tmp_path)}  # without the tool `az`
    command = [sys.executable, "-m", "tombola", "store", "show", "az://container/x?account_name=noaccount"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert "az://container/x" in ended.stderr


def test_a_missing_bucket_is_one_line(url: str) -> None:
    with raises_input_error("no-such-bucket"):
        BucketStore.at(url.replace(BUCKET, "no-such-bucket")).check_writable()


def test_a_store_that_cannot_be_used_ends_the_command_with_status_2(tmp_path: Path, url: str) -> None:
    place = url.replace(BUCKET, "no-such-bucket")
    ended = tombola("run", "digits", "--out", str(tmp_path / "out"), "--engine", "eager", "--store", place)
    assert ended.exit_code == 2
    assert len(ended.stderr.splitlines()) == 1
    assert "no-such-bucket" in ended.stderr


PUTS = """import sys, itertools
from tombola.runs.bucket import Bucket
from tombola.runs.store_url import parse_url
bucket = Bucket(parse_url(sys.argv[1]))
for i in itertools.count():
    bucket.put(f"large/{i}", b"x" * 12_000_000)
"""


def test_a_process_killed_in_the_middle_of_a_put_leaves_no_part_of_an_object(
    url: str, server: int, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.delay = 0.05
    with subprocess.Popen([sys.executable, "-c", PUTS, url]) as process:
        while not any("large/1?partNumber" in request for request in proxy.requests):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    bucket = Bucket(parse_url(url_of(server, tmp_path.name)))
    found = [entry.name for entry in bucket.list("large")]
    assert "large/0" in found
    assert {len(bucket.get(name) or b"") for name in found} == {12_000_000}
