"""Claims for places where locks cannot be trusted, such as buckets and network file systems. They are only hints.

    claims/OWNER~DIGITS      keys that OWNER has claimed, by the first digits of a hash of each
    claims/OWNER~alive       written regularly while the owner is alive

An owner announces the keys that it wants, and then lists all claims. If another owner has announced one of these
keys, it withdraws, and tries again after a while. So of two simultaneous owners at most one has a key, provided that
a listing shows everything written before, as it does in S3, Google Cloud Storage and Azure. An owner that has written
nothing for some time, by the clock of the server, holds nothing, so no process waits forever. If the owner was only
slow, a run is trained twice, with the same outcome.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import random
import threading
import time
import uuid
from collections.abc import Collection, Iterable
from contextlib import suppress

from tombola.runs.objects import Objects, StoredObject
from tombola.utils.errors import InputError
from tombola.utils.processes import has_ended, process_name

log = logging.getLogger(__name__)

RENEW = 15.0
"""Seconds between the writes by which an owner shows that it is alive."""

STALE = 90.0
"""Seconds without such a write after which an owner holds nothing."""

PAUSE = (1.0, 3.0)
"""Seconds until keys that another owner had are tried again, at random, so that two owners do not collide again."""

DIGITS = 6
KEYS_OF_OBJECT = 36
"""How many keys a name can list: names of files are limited to 255 characters."""


class HintClaim:
    """Keys that this process has claimed; initially none. See `Claim`."""

    def __init__(self, objects: Objects) -> None:
        """Claims in the same `objects` exclude each other, with the limits that this module describes."""
        self._objects = objects
        self._owner = f"{process_name()}.{uuid.uuid4().hex[:8]}"
        self._about = f"{platform.node()}, process {process_name()}, {time.strftime('%Y-%m-%d %H:%M:%S %Z')}".encode()
        self._held: dict[str, set[str]] = {}
        """Names of objects -> the keys that they claim."""
        self._taken: set[str] = set()
        """The digits of the keys that others had, when this was last looked up."""
        self._again = 0.0
        """When to look them up again, by the monotonic clock."""
        self._ended = threading.Event()
        self._renewal: threading.Thread | None = None

    def try_add(self, keys: Collection[str]) -> bool:
        """Hold `keys` too, all or none: none, and False is returned, if another claim has one of them."""
        refused = not self._taken.isdisjoint(map(_digits, keys))
        if refused and time.monotonic() < self._again:
            return False
        self._renew_from_now_on()
        if refused and self._others_have(keys):
            return False
        names = {self._name(part): set(part) for part in _parts(sorted(keys))}
        self._held |= names
        free = False
        try:
            for name in names:
                self._objects.put(name, self._about)
            free = not self._others_have(keys)
        finally:
            if not free:
                self._withdraw(names)
        return free

    def remove(self, keys: Collection[str]) -> None:
        """Hold these keys no longer."""
        for held in self._held.values():
            held.difference_update(keys)
        self._withdraw([name for name, held in self._held.items() if not held])

    def release(self) -> None:
        """Hold nothing any longer."""
        self._ended.set()
        if self._renewal is not None:
            self._renewal.join()
            self._renewal = None
        self._ended.clear()
        self._withdraw(list(self._held))

    def _name(self, keys: Iterable[str]) -> str:
        return f"claims/{self._owner}~{''.join(map(_digits, keys))}"

    def _withdraw(self, names: Iterable[str]) -> None:
        for name in names:
            del self._held[name]
            self._delete(name)

    def _others_have(self, keys: Collection[str]) -> bool:
        """Whether another owner that is alive has announced one of `keys`. What others have is looked up again only
        after a pause."""
        self._taken, self._again = self._others(), time.monotonic() + random.uniform(*PAUSE)
        return not self._taken.isdisjoint(map(_digits, keys))

    def _others(self) -> set[str]:
        """The digits of the keys that others have announced. Objects of dead owners are deleted."""
        owners: dict[str, list[StoredObject]] = {}
        listed = self._objects.list("claims")
        for entry in listed:
            owners.setdefault(_owner(entry), []).append(entry)
        owners.pop(self._owner, None)
        now = max((entry.modified for entry in listed), default=0.0)  # not later than the clock of the server
        taken: set[str] = set()
        for owner, entries in owners.items():
            if _holds_nothing(owner, entries, now):
                for entry in entries:
                    self._delete(entry.name)
            else:
                taken.update(*map(_digits_in, entries))
        return taken

    def _delete(self, name: str) -> None:
        with suppress(InputError):  # it will become stale
            self._objects.delete(name)

    def _renew_from_now_on(self) -> None:
        if self._renewal is None:
            self._renewal = threading.Thread(target=self._renew, daemon=True)
            self._renewal.start()

    def _renew(self) -> None:
        alive, written = f"claims/{self._owner}~alive", False
        while not self._ended.wait(RENEW):
            try:
                self._objects.put(alive, self._about)
                written = True
            except InputError as error:
                log.info("a claim could not be renewed: %s", error)
        if written:
            self._delete(alive)


def _parts(keys: list[str]) -> Iterable[list[str]]:
    return (keys[start : start + KEYS_OF_OBJECT] for start in range(0, len(keys), KEYS_OF_OBJECT))


def _digits(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:DIGITS]


def _digits_in(entry: StoredObject) -> set[str]:
    """The digits of the keys that an object claims."""
    name = entry.name.rpartition("~")[2]
    return {name[start : start + DIGITS] for start in range(0, len(name), DIGITS)}


def _owner(entry: StoredObject) -> str:
    return entry.name.rpartition("/")[2].partition("~")[0]


def _holds_nothing(owner: str, entries: list[StoredObject], now: float) -> bool:
    """Whether the owner of these objects has ended, or has not shown for some time that it is alive."""
    return has_ended(owner.rpartition(".")[0]) or max(entry.modified for entry in entries) < now - STALE
