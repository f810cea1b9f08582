"""Objects in a bucket, by names: read, written, listed and deleted with few requests."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from pyarrow import fs

from tombola.runs.objects import StoredObject
from tombola.runs.store_url import StoreUrl, connect
from tombola.utils.errors import InputError
from tombola.utils.files import interrupts_deferred
from tombola.utils.text import one_line

_NO_BUCKET = re.compile("NO_SUCH_BUCKET|Bucket '.*' not found|ContainerNotFound|bucket does not exist", re.IGNORECASE)
_NO_ACCESS = re.compile(
    "ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE|TOKEN|CREDENTIAL|AuthenticationFailed|AuthorizationFailure"
    r"|permission|status 40[13]|\b40[13]\b|UNAUTHENTICATED",
    re.IGNORECASE,
)

READS = 3
"""How often an object is read if its length is not the announced one."""


@dataclass(frozen=True)
class Bucket:
    """The objects under the prefix of a URL.

    Requests that fail for a passing reason (a timeout, a connection that is reset, a server that asks to slow down)
    are sent again by the provider's library. All methods raise `InputError`, in one line without credentials, if the
    library gives up, if there is no such bucket, and if permission is missing.
    """

    url: StoreUrl

    def get(self, name: str) -> bytes | None:
        """The content of an object; None if there is no such object. One request if there is none, otherwise two."""
        for _ in range(READS):
            with self._failures():
                try:
                    with connect(self.url).open_input_file(self.url.path(name)) as file:
                        size = file.size()
                        content: bytes = file.read(size)
                except FileNotFoundError:
                    return None
            if len(content) == size:  # otherwise it was replaced meanwhile
                return content or None  # Azure shows an empty object while one is being written
        raise InputError(f"the store {self.url}: {name} could not be read to its end")

    def exists(self, name: str) -> bool:
        """Whether there is such an object. One request."""
        with self._failures():
            try:
                with connect(self.url).open_input_file(self.url.path(name)) as file:
                    return bool(file.size() > 0)
            except FileNotFoundError:
                return False

    def put(self, name: str, content: bytes) -> None:
        """Write or replace an object. At any time it is either complete or missing. One request if it is small."""
        # Closing a stream, also by an exception, makes an object of what was written until then. So everything is
        # written at once, and nothing may interrupt this; a process that is killed leaves no object.
        with self._failures(), interrupts_deferred():
            stream = connect(self.url).open_output_stream(self.url.path(name))
            stream.write(content)
            stream.close()

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""
        with self._failures(), suppress(FileNotFoundError):
            connect(self.url).delete_file(self.url.path(name))

    def delete_folder(self, folder: str) -> None:
        """Delete all objects whose names begin with `folder` and a slash. One request if there are none."""
        if self.list(folder):
            with self._failures(), suppress(FileNotFoundError):
                connect(self.url).delete_dir(self.url.path(folder))

    def list(self, folder: str) -> list[StoredObject]:
        """All objects whose names begin with `folder` and a slash, or all. One request for each thousand of them."""
        with self._failures():
            selector = fs.FileSelector(self.url.path(folder), recursive=True, allow_not_found=True)
            found = connect(self.url).get_file_info(selector)
        start = PurePosixPath(self.url.path(""))
        return [
            StoredObject(PurePosixPath(info.path).relative_to(start).as_posix(), info.mtime_ns / 1e9, info.size)
            for info in found
            if info.type == fs.FileType.File
        ]

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"the store {self.url}: {_reason(error, self.url)}") from error


def _reason(error: OSError, url: StoreUrl) -> str:
    text = str(error)
    told = _told(text, url)
    if _NO_BUCKET.search(told):
        return "there is no such bucket"
    if _NO_ACCESS.search(told):
        return "access is denied, or no credentials were found where its provider's tools look for them"
    for name, value in os.environ.items():
        if len(value) > 7 and re.search("KEY|SECRET|TOKEN|PASSWORD", name):
            text = text.replace(value, "…")
    return f"it cannot be reached: {one_line(OSError(text))}"


def _told(text: str, url: StoreUrl) -> str:
    """The provider's message, without names of objects, because these may contain any word."""
    _, amazon, told = text.partition("AWS Error ")
    return told if amazon else re.sub(r"'[^']*'|\S*/\S*", "''", text.replace(url.path("/"), "/"))
