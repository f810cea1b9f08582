"""Where, when and by what results were computed, and the files beside a page."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from tombola.experiments.file_names import CONFIGURATION
from tombola.experiments.results import TICKET, Results
from tombola.experiments.session import Session
from tombola.report.document import Link, Section, Table
from tombola.report.formatting import NONE
from tombola.utils.checkouts import DIRTY, own_commit
from tombola.utils.libraries import documentation_url, versions
from tombola.utils.text import plural

LIBRARIES = {"torch": "PyTorch", "numpy": "NumPy"}
"""What libraries are called, if not by the name of their package."""


def links(
    results: Results, page: Path | None, label: str = "", files: Sequence[str] = (TICKET, CONFIGURATION)
) -> list[Link]:
    """Links to those of the `files` that the results folder has, each after the `label`, from a `page`, by default
    one in that folder."""
    if results.folder is None:
        return []
    there = results.folder if page is None else _relative(results.folder, page.parent)
    below = "" if page is None or there == Path() else f"{quote(there.as_posix())}/"
    return [Link(f"{label}{name}", f"{below}{name}") for name in files if (results.folder / name).is_file()]


def documentation() -> list[Link]:
    """The link to the documentation, if the installed package has one."""
    url = documentation_url()
    return [Link("documentation", url)] if url else []


def provenance(results: Results) -> Section:
    """The section of one experiment: a column for each environment that trained some of its runs."""
    groups: dict[str, list[Session]] = {}
    for session in results.sessions:
        groups.setdefault(session.environment, []).append(session)
    columns = [facts(results, sessions) for sessions in groups.values()] or [facts(results, [])]
    names = ["trained with"] if len(columns) == 1 else [f"trained with, {n}" for n in range(1, len(columns) + 1)]
    folder = "" if results.folder is None else f"Results folder: {results.folder}. "
    return Section(
        "provenance", "Provenance", [folder + written()], provenance_tables(dict(zip(names, columns, strict=True)))
    )


def provenance_tables(columns: Mapping[str, Mapping[str, str]]) -> list[Table]:
    """A table of such `facts`, by the heads of their columns; empty if nothing is known."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows = [[name, *(column.get(name, NONE) for column in columns.values())] for name in names]
    caption = "Training environment"
    return (
        [Table("provenance-table", caption, ["", *columns], rows, frozenset(range(len(columns) + 1)))] if rows else []
    )


def facts(results: Results, sessions: Sequence[Session]) -> dict[str, str]:
    """What is known of the environment of these sessions of an experiment, by name."""
    if not sessions:
        return {LIBRARIES.get(name, name): version for name, version in results.versions.items()}
    found: dict[str, str] = {
        "trained": f"{_period(sessions)}; {plural(sum(each.trained for each in sessions), 'run')}",
        "processor": _distinct(each.processor for each in sessions),
        "system": _distinct(each.system for each in sessions),
        "Python": _distinct(each.python for each in sessions),
    }
    libraries = dict.fromkeys(name for each in sessions for name in each.versions)
    for name in sorted(libraries, key=lambda library: library not in LIBRARIES):
        own = name == "tombola"
        found[LIBRARIES.get(name, name)] = _distinct(
            version + (f", commit {_commit(each.tombola_commit)}" if own and each.tombola_commit else "")
            for each in sessions
            if (version := each.versions.get(name))
        )
    if project := [each.project_commit for each in sessions if each.project_commit]:
        found["commit of the working directory"] = _distinct(map(_commit, project))
    return found


def written() -> str:
    """When this page is written, and by what."""
    commit = own_commit()
    by = f"tombola {versions()['tombola']}" + (f", commit {_commit(commit)}" if commit else "")
    return f"This page was written on {moment(datetime.now().astimezone())} by {by}."


def moment(time: datetime) -> str:
    """To the minute, with the time zone: `2026-11-30 01:51 UTC+01:00`."""
    offset = f"{time:%z}"
    zone = "UTC" if offset in ("+0000", "") else f"UTC{offset[:3]}:{offset[3:5]}"
    return f"{time:%Y-%m-%d %H:%M} {zone}"


def _period(sessions: Sequence[Session]) -> str:
    began, ended = min(each.began for each in sessions), max(each.ended for each in sessions)
    return moment(began) if moment(began) == moment(ended) else f"{moment(began)} to {moment(ended)}"


def _commit(described: str) -> str:
    commit = described.removesuffix(DIRTY)
    return commit if commit == described else f"{commit} with uncommitted changes"


def _distinct(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values))


def _relative(folder: Path, start: Path) -> Path:
    """The way from one folder to another; absolute where there is none, as between drives."""
    try:
        return Path(os.path.relpath(folder.resolve(), start.resolve()))
    except ValueError:
        return folder.resolve()
