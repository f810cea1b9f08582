"""Addresses of stores in buckets: `s3://BUCKET/PREFIX?OPTION=VALUE`, `gs://…`, `az://CONTAINER/PREFIX`."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from pyarrow import fs

from tombola.utils.errors import InputError
from tombola.utils.text import enumeration, first_line

ATTEMPTS = 6
"""How often a request to S3 is sent, after pauses that double from about a second, before it counts as failed."""

TIMEOUT = 10.0
"""Seconds until a request to S3 that is not answered counts as failed."""

PATIENCE = 60.0
"""Seconds for which requests to Google Cloud Storage are repeated, and for which the first one to Azure may take."""

OPTIONS = {
    "s3": ("endpoint_override", "region", "scheme"),
    "gs": ("endpoint_override", "project_id", "scheme"),
    "az": ("account_name", "blob_storage_authority", "blob_storage_scheme"),
}
"""Kinds of buckets, and the options allowed in the query of their URL: parameters of `pyarrow.fs` without secrets."""

_CREDENTIALS = "credentials do not belong there, but where its provider's tools look for them"


@dataclass(frozen=True)
class StoreUrl:
    """The parts of a URL that names a store in a bucket."""

    kind: str
    bucket: str
    prefix: str = ""
    """The prefix of all names in the bucket, without slashes at its ends."""
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        query = f"?{urlencode(self.options, safe=':/')}" if self.options else ""
        return f"{self.kind}://{self.path('')}{query}"

    def path(self, name: str) -> str:
        """The bucket, the prefix and `name`."""
        return "/".join(part for part in (self.bucket, self.prefix, name) if part)

    def part(self, name: str) -> StoreUrl:
        """The place `name` within this one."""
        return StoreUrl(self.kind, self.bucket, f"{self.prefix}/{name}".strip("/"), self.options)


def parse_url(text: str) -> StoreUrl:
    """The parts of a URL. Raises `InputError` if it is not the URL of a bucket, or contains credentials; the message
    does not quote these."""
    kind, _, rest = text.partition("://")
    if kind not in OPTIONS:
        known = ", ".join(f"{name}://" for name in [*OPTIONS, "file"])
        raise InputError(f"store: a URL should begin with one of {known}")
    url = urlsplit(f"{kind}://{rest}", allow_fragments=False)
    if "@" in url.netloc or ":" in url.netloc:
        raise InputError(f"store: a {kind}:// URL should be {kind}://BUCKET/PREFIX; {_CREDENTIALS}")
    options = parse_qsl(url.query, keep_blank_values=True)
    if not {name for name, _ in options} <= set(OPTIONS[kind]):
        raise InputError(f"store: the options in a {kind}:// URL can be {enumeration(OPTIONS[kind])}; {_CREDENTIALS}")
    parts = [unquote(part) for part in url.path.split("/") if part]
    if not url.netloc or {".", ".."} & set(parts):
        raise InputError(f"store: a {kind}:// URL should be {kind}://BUCKET or {kind}://BUCKET/PREFIX")
    return StoreUrl(kind, url.netloc, "/".join(parts), tuple(sorted(options)))


@functools.cache
def connect(url: StoreUrl) -> fs.FileSystem:
    """The file system of a bucket, with the credentials that its provider's own library finds.

    Raises `OSError` if the region of a bucket in S3 cannot be found, and `InputError` if an option is invalid, or if
    pyarrow is too old or was built without this kind.
    """
    try:
        return _CONNECT[url.kind](url)
    except InputError:
        raise
    except (TypeError, AttributeError) as error:
        raise InputError(f"the store {url}: this pyarrow cannot open it; install a newer one") from error
    except ValueError as error:
        raise InputError(f"the store {url}: {first_line(error)}") from error


def _s3(url: StoreUrl) -> fs.FileSystem:
    options: dict[str, Any] = dict(url.options)
    elsewhere = {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} & os.environ.keys()
    if not elsewhere and not {"region", "endpoint_override"} & options.keys():
        options["region"] = fs.resolve_s3_region(url.bucket)
    return fs.S3FileSystem(
        **options,
        allow_delayed_open=True,  # a small object is one request
        background_writes=False,
        connect_timeout=TIMEOUT,
        request_timeout=TIMEOUT,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )


def _google(url: StoreUrl) -> fs.FileSystem:
    return fs.GcsFileSystem(**dict(url.options), retry_time_limit=timedelta(seconds=PATIENCE))


def _azure(url: StoreUrl) -> fs.FileSystem:
    options = dict(url.options)
    account = options.pop("account_name", None) or os.environ.get("AZURE_STORAGE_ACCOUNT")
    if not account:
        raise InputError(f"the store {url}: set AZURE_STORAGE_ACCOUNT, or add ?account_name=NAME to the URL")
    opened = fs.AzureFileSystem(account, **options)
    if not _survives(json.dumps([account, options, url.bucket])):
        raise InputError(f"the store {url}: no credentials were found where Azure's tools look for them")
    return opened


@functools.cache
def _survives(arguments: str) -> bool:
    """Whether a process survives a request to Azure: without credentials, Azure's library ends the process."""
    command = [sys.executable, "-c", _PROBE, arguments]
    with suppress(subprocess.TimeoutExpired):  # the real request will wait again and report the reason
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
        return ended.returncode == 0
    return True


_PROBE = """import contextlib, json, sys
from pyarrow import fs
account, options, container = json.loads(sys.argv[1])
with contextlib.suppress(Exception):
    fs.AzureFileSystem(account, **options).get_file_info(container)
"""


_CONNECT: dict[str, Callable[[StoreUrl], fs.FileSystem]] = {"s3": _s3, "gs": _google, "az": _azure}
