"""The use of a store: the outcomes that each experiment refers to, and those that no experiment refers to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tombola.experiments.run_references import RunReferences, kind_of, parents_of, read_references
from tombola.runs.store import Store
from tombola.runs.store_contents import StoreContents, contents_of
from tombola.utils.errors import DamagedFile, InputError


@dataclass
class Descriptions:
    """The descriptions of stored runs, each read once. Outcomes that cannot be read are noted."""

    store: Store
    damaged: dict[str, str] = field(default_factory=dict)
    """What is wrong with an outcome, by key."""
    _known: dict[str, dict[str, Any]] = field(default_factory=dict)

    def of(self, key: str) -> dict[str, Any] | None:
        """The description of this run; None if the outcome is damaged, or has been removed. Raises `InputError` if
        its file cannot be read."""
        if key not in self._known and key not in self.damaged:
            try:
                self._known[key] = _checked(self.store.about(key)["run"])
            except FileNotFoundError:
                return None
            except DamagedFile as error:
                self.damaged[key] = str(error)
            except (LookupError, AttributeError, TypeError):
                self.damaged[key] = f"the outcome {key} does not describe its run"
            except OSError as error:
                raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error
        return self._known.get(key)

    def with_ancestors(self, keys: Iterable[str]) -> set[str]:
        """These keys, and the keys of all runs that the stored runs among them start from."""
        found: set[str] = set()
        waiting = [*keys]
        while waiting:
            key = waiting.pop()
            if key not in found:
                found.add(key)
                waiting += parents_of(self.of(key) or {"start": {}})
        return found


def _checked(description: dict[str, Any]) -> dict[str, Any]:
    """The same description, if it is that of a run; otherwise raises the error of reading it."""
    kind_of(description)
    parents_of(description)
    return description


@dataclass(frozen=True)
class StoreUsage:
    """The contents of a store and the experiments that use them."""

    contents: StoreContents
    experiments: dict[Path, set[str]]
    """For each results folder, the keys of the outcomes that it refers to or, if that is undecided, may refer to.
    Several folders may refer to the same outcome."""
    unreferenced: set[str]
    """The keys of outcomes that no experiment refers to."""
    damaged: dict[str, str]
    """What is wrong with damaged outcomes, by key."""
    undecided: list[str]
    """The experiments for which it is not known exactly what they refer to, and why, one line each."""
    descriptions: Descriptions


def store_usage(store: Store, folders: Sequence[Path], damaged: Mapping[str, str] | None = None) -> StoreUsage:
    """The outcomes in `store` that these results folders use. Outcomes in `damaged`, by key, are known to be damaged.

    A finished experiment has listed its runs. If an experiment has not, because it is running, interrupted, damaged
    or from an older version, all outcomes that may belong to it count as its own: see `RunReferences.may_have`.
    """
    contents = contents_of(store)
    descriptions = Descriptions(store, {key: why for key, why in (damaged or {}).items() if key in contents.outcomes})
    stored = contents.outcomes.keys()
    references = [read_references(folder) for folder in folders]
    listed = {key for each in references if each.complete for key in each.keys}
    experiments = {}
    for each in references:
        keys = {*each.keys} if each.complete else _possible(each, contents, descriptions, listed)
        experiments[each.folder] = keys & stored
    unreferenced = {*stored} - set().union(*experiments.values())
    for key in unreferenced:
        descriptions.of(key)
    undecided = [_reason(each) for each in references if not each.complete]
    broken = {key: why for key, why in descriptions.damaged.items() if key in stored}
    return StoreUsage(contents, experiments, unreferenced - broken.keys(), broken, undecided, descriptions)


def _possible(
    references: RunReferences, contents: StoreContents, descriptions: Descriptions, listed: set[str]
) -> set[str]:
    """The keys of the outcomes that an experiment names, or may have without naming them unless other experiments
    have `listed` them, and of the outcomes that these start from."""
    named = [described for key in references.keys & contents.outcomes.keys() if (described := descriptions.of(key))]
    own = {kind_of(described) for described in named}
    possible = {
        key
        for key, file in contents.outcomes.items()
        if key not in listed
        and (described := descriptions.of(key))
        and references.may_have(file.modified, described, own)
    }
    return descriptions.with_ancestors(possible | references.keys)


def _reason(references: RunReferences) -> str:
    problems = "; ".join(references.problems) or "it is not finished, or was finished by an older version"
    return f"{references.folder}: {problems}; all outcomes that may be its own are kept"
