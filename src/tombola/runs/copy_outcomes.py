"""Copies outcomes from one store to another."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from tombola.runs.check_outcomes import Progress, check_outcome
from tombola.runs.store import Store
from tombola.runs.store_contents import contents_of
from tombola.utils.errors import DamagedFile


@dataclass
class CopyReport:
    """What was copied."""

    copied: int = 0
    bytes: int = 0
    """The size of the copied outcomes."""
    there: int = 0
    """The number of outcomes that the other store already had."""
    damaged: list[str] = field(default_factory=list)
    """The outcomes that were left out because they are damaged, and what is wrong with them, one line each."""


def copy_outcomes(
    source: Store, target: Store, keys: Collection[str] | None = None, progress: Progress | None = None
) -> CopyReport:
    """Copy the outcomes with these keys, by default all, that `target` lacks. Each is checked by its digest, and
    appears in `target` complete or not at all, so after any interruption the same call continues.

    Raises `InputError` if `target` cannot be written.
    """
    outcomes, there = contents_of(source).outcomes, contents_of(target).outcomes
    wanted = [key for key in outcomes if keys is None or key in keys]
    report = CopyReport()
    for done, key in enumerate(wanted, 1):
        if key in there:
            report.there += 1
        else:
            try:
                _copy(source, target, key)
            except FileNotFoundError:  # it was removed since it was listed
                continue
            except DamagedFile as error:
                report.damaged.append(str(error))
            else:
                report.copied += 1
                report.bytes += outcomes[key].bytes
        if progress is not None:
            progress(done, len(wanted))
    return report


def _copy(source: Store, target: Store, key: str) -> None:
    with source.file_of(key) as file:
        check_outcome(file, key)
        target.put_file(key, file)
