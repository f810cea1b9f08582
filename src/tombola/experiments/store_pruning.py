"""Finds what may be deleted from a store, and deletes it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from tombola.experiments.store_usage import StoreUsage
from tombola.runs.store import Store
from tombola.runs.store_contents import checkpointed_run
from tombola.runs.stored_file import StoredFile

DAY = 86400.0
"""An age in seconds. No process can still be writing to an older file. A younger outcome may belong to a running
experiment that has no results folder here."""

CLAIMED_AT_ONCE = 200
"""How many runs are claimed together; each change of a claim is written to a file."""


@dataclass(frozen=True)
class Removal:
    """A file that may be deleted."""

    kind: str
    """See `tombola.runs.file_kinds.KINDS`."""
    file: StoredFile
    run: str | None = None
    """The key of a run: the file is deleted only while no process trains this run."""


def removals(usage: StoreUsage, now: float, older_than: float | None, keep: Collection[str] = ()) -> list[Removal]:
    """The files that may be deleted: damaged outcomes, outcomes that no experiment refers to, checkpoints of finished
    runs, and leftovers of killed processes. With `older_than`, an age in seconds, only older files; if it is a day or
    more, also other checkpoints. Without it, outcomes that no experiment refers to are kept for a day. Files of the
    kinds in `keep` are never deleted."""
    contents = usage.contents
    age = older_than or 0.0

    def old(file: StoredFile, least: float = age) -> bool:
        return now - file.modified >= least

    def obsolete(file: StoredFile) -> bool:
        return checkpointed_run(file) in contents.outcomes or (older_than is not None and old(file, max(age, DAY)))

    least = DAY if older_than is None else older_than
    outcomes = _unused(usage, {key for key in usage.unreferenced if old(contents.outcomes[key], least)})
    found = [
        *(Removal("outcomes", contents.outcomes[key], key) for key in outcomes),
        *(Removal("checkpoints", f, checkpointed_run(f)) for f in contents.checkpoints if old(f) and obsolete(f)),
        *(Removal("damaged", contents.outcomes[key], key) for key in usage.damaged if old(contents.outcomes[key])),
        *(Removal("damaged", file) for file in contents.damaged if old(file)),
        *(Removal("leftovers", file) for file in contents.leftovers if old(file, max(age, DAY))),
    ]
    return [removal for removal in found if removal.kind not in keep]


def _unused(usage: StoreUsage, candidates: set[str]) -> Iterable[str]:
    """The unreferenced outcomes that no remaining outcome starts from."""
    stay = usage.descriptions.with_ancestors(usage.unreferenced - candidates)
    return sorted(candidates - stay)


def remove(store: Store, chosen: Sequence[Removal]) -> Iterator[tuple[Removal, bool]]:
    """Delete files, unless their run is claimed, and yield each with whether it was deleted. It may be interrupted at
    any point. Raises `InputError` if a file cannot be deleted."""
    claim = store.claims()
    try:
        for start in range(0, len(chosen), CLAIMED_AT_ONCE):
            batch = chosen[start : start + CLAIMED_AT_ONCE]
            keys = {removal.run for removal in batch if removal.run is not None}
            held = keys if claim.try_add(keys) else {key for key in sorted(keys) if claim.try_add([key])}
            for removal in batch:
                free = removal.run is None or removal.run in held
                if free:
                    store.remove(removal.file)
                yield removal, free
            claim.remove(held)
    finally:
        claim.release()
