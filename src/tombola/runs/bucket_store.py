"""A store in a bucket, with a cache in a folder of this user.

The bucket has the same names as the folder of a `Store` (see there), with the folder `claims` of `hint_claims`. An
outcome is one object that appears when all of it is written, so it is complete or missing. Outcomes that were read or
written are kept in the user's cache, where they are found without a request.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import platformdirs
from torch import Tensor

from tombola.runs.bucket import Bucket
from tombola.runs.checkpoint import Checkpoint
from tombola.runs.claims import KeyClaim
from tombola.runs.hint_claims import HintClaim
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.runs.store import ID, Store, aside_name
from tombola.runs.store_url import StoreUrl, parse_url
from tombola.runs.stored_file import StoredFile
from tombola.utils.errors import DamagedFile, InputError
from tombola.utils.files import atomic_write, read_about

log = logging.getLogger(__name__)

TRUSTED = 24 * 3600.0
"""Seconds after which a cached outcome is looked up in the bucket again, because it may have been deleted there."""

SAME_ID = 60.0
"""Seconds until the store's id is read again, because a store that was deleted and made again has another id."""


@dataclass(frozen=True)
class BucketStore(Store):
    """Outcomes by the key of their run, in a bucket; `folder` is the cache.

    All methods raise `InputError`, in one line without credentials, if the bucket cannot be reached or used. The
    outcomes in the bucket are listed once, when the first outcome is looked up that the cache lacks.
    """

    bucket: Bucket = field(kw_only=True)
    _seen: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    """Keys of outcomes that were read or written since the bucket was listed."""

    @classmethod
    def at(cls, url: str | StoreUrl, checkpoint_every: float = 30.0) -> BucketStore:
        """The store at `url`. Raises `InputError` if that is not the URL of a bucket."""
        parsed = parse_url(url) if isinstance(url, str) else url
        name = hashlib.sha256(str(parsed).encode()).hexdigest()[:32]
        cache = platformdirs.user_cache_path("tombola") / "stores" / name
        return cls(cache, checkpoint_every, bucket=Bucket(parsed))

    def __reduce__(self) -> tuple[Callable[..., BucketStore], tuple[StoreUrl, float]]:
        return type(self).at, (self.bucket.url, self.checkpoint_every)  # elsewhere the cache is another folder

    @property
    def place(self) -> str:
        return str(self.bucket.url)

    @property
    def store_id(self) -> str | None:
        try:
            return _read_id(self.bucket, time.monotonic() // SAME_ID)
        except (InputError, LookupError):
            return None

    def exists(self) -> bool:
        """Whether there is a store."""
        return self.bucket.exists(ID)

    def check_writable(self) -> None:
        super().check_writable()
        known = self.bucket.get(ID)
        self.bucket.put(ID, known or uuid.uuid4().hex.encode())  # even if it exists, to check for write permission
        known = known or self.bucket.get(ID) or b""  # another process may have made it at the same time
        _read_id.cache_clear()
        if (self.folder / ID).read_bytes() != known:  # the cache belongs to an earlier or another store
            for folder in ("runs", "unfinished"):
                shutil.rmtree(self.folder / folder, ignore_errors=True)
            with atomic_write(self.folder / ID) as path:
                path.write_bytes(known)

    def get(self, run: BaseRun, *, fresh: bool = False) -> Outcome | None:
        cached = self._entry(run.key).is_file()
        if not (fresh or cached or self._has(run.key)):
            return None
        outcome = super().get(run, fresh=fresh)
        if cached and outcome is not None:
            self._confirm(run.key)
        return outcome

    def peek(self, run: BaseRun) -> Outcome | None:
        return super().peek(run) if self._has(run.key) else None

    def put(self, run: BaseRun, outcome: Outcome) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, self._entry(run.key).name)
            self._write(path, run, outcome)
            self.put_file(run.key, path)
            self._keep(run.key, path)  # only now, because the cache must not have what the bucket lacks

    def claims(self) -> KeyClaim:
        """A claim on runs by their keys. It is only a hint: at worst, a run is trained twice."""
        return HintClaim(self.bucket)

    def checkpoint(self, runs: Sequence[BaseRun]) -> Checkpoint:
        return BucketCheckpoint(self._checkpoint_path(runs), self.checkpoint_every, bucket=self.bucket)

    def files(self) -> Iterator[StoredFile]:
        """All files of the store except claims and the cache, in order of their paths."""
        for found in sorted(self.bucket.list(""), key=lambda each: each.name):
            if not found.name.startswith("claims/"):
                yield StoredFile(found.name, found.bytes, found.modified)

    def remove(self, file: StoredFile) -> None:
        """Delete a file of the store and of the cache; does nothing if it is gone."""
        self.bucket.delete(file.path)
        super().remove(file)

    def about(self, key: str) -> dict[str, Any]:
        with suppress(FileNotFoundError, DamagedFile):
            return read_about(self._entry(key))
        return super().about(key)

    @contextmanager
    def file_of(self, key: str) -> Iterator[Path]:
        """The current outcome in the bucket as a file, to be read in this block. Raises `FileNotFoundError` if it is
        missing."""
        content = self.bucket.get(_name(key))
        if content is None:
            raise FileNotFoundError(self._entry_name(key))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"{key}.safetensors")
            path.write_bytes(content)
            with self._naming(key, path):
                yield path

    def put_file(self, key: str, file: Path) -> None:
        """Store an outcome that is in a file of another store."""
        self.bucket.put(_name(key), file.read_bytes())
        self._seen.add(key)

    def _read(self, key: str) -> tuple[Outcome, Any]:
        with suppress(FileNotFoundError, DamagedFile):  # if the cache has lost it, the bucket counts
            return super()._read(key)
        with self.file_of(key) as file:
            kept = self._keep(key, file)
            self._seen.add(key)
            try:
                return self._read_file(file, key)
            except DamagedFile as error:
                if kept:
                    raise
                raise InputError(str(error).replace(str(file), self._entry_name(key))) from error

    def _keep(self, key: str, file: Path) -> bool:
        """Put an outcome into the cache, if that is possible."""
        try:
            super().put_file(key, file)
        except InputError as error:  # the disk is full
            log.warning("%s; the outcome is in %s only", error, self.place)
            return False
        return True

    @contextmanager
    def _naming(self, key: str, file: Path) -> Iterator[None]:
        """Make a `DamagedFile` raised in this block name the entry, not the `file` that it was read from."""
        try:
            yield
        except DamagedFile as error:
            raise DamagedFile(str(error).replace(str(file), self._entry_name(key))) from error

    @functools.cached_property
    def _listed(self) -> frozenset[str]:
        return frozenset(PurePosixPath(each.name).stem for each in self.bucket.list("runs") if each.bytes)

    def _has(self, key: str) -> bool:
        """Whether the bucket has an outcome, as far as is known without a request for each outcome."""
        return key in self._seen or key in self._listed

    def _confirm(self, key: str) -> None:
        """Write a cached outcome to the bucket again if it is missing there; this is checked only occasionally."""
        path = self._entry(key)
        with suppress(OSError):  # it may be deleted at any time; then it is checked again the next time
            if time.time() - path.stat().st_mtime < TRUSTED:
                return
            if not self._has(key):
                self.put_file(key, path)
            os.utime(path)

    def _entry_name(self, key: str) -> str:
        return str(self.bucket.url.part(_name(key)))

    def _set_aside(self, key: str, before: tuple[int, int] | None) -> str | None:  # noqa: ARG002 - that of the cache
        aside = f"damaged/{aside_name(key)}"
        try:
            damaged = self._entry(key).read_bytes()
        except FileNotFoundError:  # another process on this machine has done this
            return None
        self._entry(key).unlink(missing_ok=True)
        if self.bucket.get(_name(key)) != damaged:
            return None
        self.bucket.put(aside, damaged)
        self.bucket.delete(_name(key))
        return str(self.bucket.url.part(aside))


@dataclass
class BucketCheckpoint(Checkpoint):
    """A checkpoint that is also in a bucket, so that a killed training can be resumed on another machine."""

    bucket: Bucket = field(kw_only=True)

    def _replace(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        super()._replace(tensors, about)
        try:
            self.bucket.put(self._name, self.path.read_bytes())
            self.path.unlink(missing_ok=True)  # so a file here is always newer than the object
        except InputError as error:  # no reason to end a training
            log.warning("%s; only this machine could resume the training", error)

    def load(self, engine: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        self.wait()
        if self.path.exists():
            return super().load(engine)
        if content := self.bucket.get(self._name):
            with atomic_write(self.path) as temporary:
                temporary.write_bytes(content)
        try:
            return super().load(engine)
        finally:
            self.path.unlink(missing_ok=True)

    def part(self, index: int) -> BucketCheckpoint:
        return BucketCheckpoint(super().part(index).path, self.every, bucket=self.bucket)

    def clear(self) -> None:
        """Delete the saved states of all parts, because they belong to the same training."""
        super().clear()
        self.bucket.delete_folder(self._folder)

    @property
    def _folder(self) -> str:
        """The folder in the bucket, which also has the checkpoints of parts."""
        return f"unfinished/{self.path.stem.partition('-')[0]}"

    @property
    def _name(self) -> str:
        return f"{self._folder}/{self.path.name}"


def _name(key: str) -> str:
    """The name of the object that has an outcome."""
    return f"runs/{key[:2]}/{key}.safetensors"


@functools.lru_cache
def _read_id(bucket: Bucket, _period: float) -> str:
    """The id of the store in a bucket. Raises `LookupError` if there is no store yet."""
    content = bucket.get(ID)
    if content is None:
        raise LookupError(ID)
    return content.decode(errors="replace")
