"""The commands for stores of trained runs: show, prune, copy."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tombola.cli.application import App
from tombola.cli.common import Json, app, handle_errors
from tombola.cli.completion import complete_results
from tombola.cli.output import err_console, out_console, print_json, print_line, print_message
from tombola.runs.file_kinds import KINDS
from tombola.utils.ages import parse_age
from tombola.utils.errors import InputError, unknown
from tombola.utils.text import byte_size, plural

if TYPE_CHECKING:
    from tombola.experiments.store_pruning import Removal
    from tombola.experiments.store_usage import StoreUsage
    from tombola.runs.store import Store

StorePlace = Annotated[
    str,
    typer.Argument(metavar="STORE", envvar="TOMBOLA_STORE", help="A store: a folder or s3://BUCKET/PREFIX."),
]
ResultsFolders = Annotated[
    list[Path] | None,
    typer.Option(
        "--results",
        metavar="DIR",
        help="Results folders, or folders of them, of the experiments that use the store.",
        show_default="those beside the store",
        autocompletion=complete_results,
    ),
]
Check = Annotated[bool, typer.Option("--check", help="Read all outcomes, to find those that are damaged.")]

DEFAULT_STORE = "results/.tombola"

store_app = App(help="Look after stores of trained runs.")
app.add_typer(store_app, name="store")


@store_app.command("show")
@handle_errors
def store_show(
    place: StorePlace = DEFAULT_STORE, results: ResultsFolders = None, check: Check = False, as_json: Json = False
) -> None:
    """Show what a store has, by experiment, what no experiment refers to, and what is damaged or unfinished.

    \b
    Example:
      tombola store show results/.tombola --check
    """

    from tombola.report.store_tables import show_usage, usage_summary

    store = _existing(place)
    usage = _usage(store, _folders(store, results), check)
    summary = usage_summary(usage, time.time())
    if as_json:
        print_json({"store": place, **summary})
        return
    show_usage(out_console, place, summary)
    for line in usage.undecided:
        print_message(line, "yellow")


@store_app.command("prune")
@handle_errors
def store_prune(
    place: StorePlace = DEFAULT_STORE,
    results: ResultsFolders = None,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE",
            help="Delete only what is older, such as 30d, and checkpoints that old too.",
            show_default="1d for outcomes",
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help=f"Delete no {', '.join(KINDS[:-1])} or {KINDS[-1]}.",
            autocompletion=lambda: [*KINDS],
        ),
    ] = None,
    check: Check = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
) -> None:
    """Delete what no experiment refers to, damaged outcomes, checkpoints of finished runs, and leftovers.

    Nothing is deleted that a process is training, or that an experiment may need that is among those looked at and
    not finished. Outcomes of others stay for a day; --older-than 0d deletes them at once.

    \b
    Example:
      tombola store prune results/.tombola --older-than 30d
    """

    from tombola.experiments.store_pruning import removals
    from tombola.report.store_tables import show_removals

    for kind in keep or []:
        if kind not in KINDS:
            raise unknown("kind", kind, KINDS)
    age = None if older_than is None else parse_age("--older-than", older_than)
    store = _existing(place)
    folders = _folders(store, results)
    usage = _usage(store, folders, check)
    for line in usage.undecided:
        print_message(line, "yellow")
    if usage.unreferenced and "outcomes" not in (keep or []):
        _check_known(store, place, results, folders)
    chosen = removals(usage, time.time(), age, keep or [])
    print_line(f"{plural(len(folders), 'experiment')} looked at.{_spared(usage, chosen, age, keep or [])}")
    if not chosen:
        print_line("There is nothing to delete.")
        return
    show_removals(out_console, chosen, time.time())
    if not (yes or _confirmed(f"Delete {plural(len(chosen), 'file')}?")):
        print_line("Nothing was deleted.")
        return
    # An experiment may have been started since it was asked.
    again = _usage(store, _folders(store, results), check=False, damaged=usage.damaged)
    still = {removal.file for removal in removals(again, time.time(), age, keep or [])}
    _delete(store, [removal for removal in chosen if removal.file in still])


def _check_known(store: Store, place: str, results: list[Path] | None, folders: list[Path]) -> None:
    """Raises `InputError` if it is not known where the experiments of the store are."""

    from tombola.runs.bucket_store import BucketStore

    if isinstance(store, BucketStore) and not results:
        problem = "it is not known which experiments use a bucket"
    elif not folders:
        problem = "no results folder is beside it, so all its outcomes would go"
    else:
        return
    raise InputError(
        f"{place}: {problem}; name the results folders of its experiments with --results, or give --keep outcomes"
    )


def _spared(usage: StoreUsage, chosen: list[Removal], age: float | None, keep: list[str]) -> str:
    """How many outcomes stay that no experiment refers to, only because some are younger than a day."""
    young = usage.unreferenced - {removal.run for removal in chosen if removal.kind == "outcomes"}
    if age is not None or "outcomes" in keep or not young:
        return ""
    return f" {plural(len(young), 'outcome')} that none of them refers to are kept for a day (see --older-than)."


def _delete(store: Store, chosen: list[Removal]) -> None:
    from tombola.experiments.store_pruning import remove

    deleted, claimed = [], 0
    for removal, gone in remove(store, chosen):
        if gone:
            deleted.append(removal.file)
        claimed += not gone
    size = byte_size(sum(file.bytes for file in deleted))
    kept = f" {plural(claimed, 'file')} of runs that are being trained stayed." if claimed else ""
    print_line(f"{plural(len(deleted), 'file')} deleted, {size}.{kept}")


@store_app.command("copy")
@handle_errors
def store_copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A store of runs.", show_default=False)],
    target: Annotated[
        str, typer.Argument(metavar="TO", help="Another store; it is made if it is missing.", show_default=False)
    ],
    results: Annotated[
        list[Path] | None,
        typer.Option(
            "--results",
            metavar="DIR",
            help="Copy only the outcomes of these experiments.",
            show_default="all",
            autocompletion=complete_results,
        ),
    ] = None,
) -> None:
    """Copy outcomes to another store. The same command resumes.

    Exit status: 0; 1 if outcomes are damaged, which are left out.

    \b
    Example:
      tombola store copy results/.tombola s3://bucket/store
    """

    from tombola.experiments.folders import named_results_folders
    from tombola.runs.copy_outcomes import copy_outcomes
    from tombola.runs.opening import open_store

    origin, destination = _existing(source), open_store(target)
    keys = None
    if results:
        usage = _usage(origin, named_results_folders(results), check=False)
        keys = set().union(*usage.experiments.values())
    _check_copyable(destination)
    destination.check_writable()
    with err_console.status("copying") as status:
        report = copy_outcomes(
            origin, destination, keys, lambda done, of: status.update(f"copying: {done:,} of {of:,} outcomes")
        )
    for problem in report.damaged:
        print_message(f"{problem}; it is left out", "yellow")
    print_line(f"{plural(report.copied, 'outcome')} copied, {byte_size(report.bytes)}; {report.there:,} were there.")
    if report.damaged:
        raise SystemExit(1)  # typer.Exit would be handled as a failure


def _existing(place: str) -> Store:
    """The store at `place`. Raises `InputError` if there is none."""

    from tombola.runs.bucket_store import BucketStore
    from tombola.runs.opening import open_store
    from tombola.runs.store import ID

    store = open_store(place)
    if not store.exists() and isinstance(store, BucketStore):
        part = f"process-0/{ID}"
        hint = (
            f"; but {part}: the processes of a distributed job have a store each" if store.bucket.exists(part) else ""
        )
        raise InputError(f"{place} is not a store of runs: it has no object {ID}{hint}")
    if not store.exists():
        parts = sorted(path.parent.name for path in store.folder.glob("process-*/runs"))
        hint = f"; it has those of a distributed job's processes: {', '.join(parts)}" if parts else ""
        raise InputError(f"{place} is not a store of runs: it has no folder runs{hint}")
    return store


def _check_copyable(store: Store) -> None:
    """Raises `InputError` if it would be made in a folder that has something else."""

    from tombola.runs.bucket_store import BucketStore
    from tombola.utils.files import writing

    folder = store.folder
    if isinstance(store, BucketStore) or store.exists() or not folder.is_dir():
        return
    with writing(f"the store {folder}"):
        others = {path.name for path in folder.iterdir()} - {".gitignore"}  # which a new store has first
    if others:
        raise InputError(f"{folder} has other files, and is not a store of runs; name a new folder or a store")


def _folders(store: Store, results: list[Path] | None) -> list[Path]:
    """The results folders of a store's experiments: those named, or beside it; for a bucket, those in `results`."""

    from tombola.experiments.folders import named_results_folders, results_folders
    from tombola.runs.bucket_store import BucketStore

    if results:
        return named_results_folders(results)
    if isinstance(store, BucketStore):
        return results_folders(Path(DEFAULT_STORE).parent)
    folder = store.folder
    return results_folders((folder.resolve() if folder.name in ("", "..") else folder).parent)


def _usage(store: Store, folders: list[Path], check: bool, damaged: dict[str, str] | None = None) -> StoreUsage:
    """Who uses what in `store`; with `check`, all outcomes are read. `damaged` are known to be."""

    from tombola.experiments.store_usage import store_usage
    from tombola.runs.check_outcomes import check_outcomes

    with err_console.status("reading the store") as status:
        usage = store_usage(store, folders, damaged)
        if check:
            keys = [*usage.contents.outcomes]
            found = check_outcomes(store, keys, lambda done, of: status.update(f"{done:,} of {of:,} outcomes read"))
            return store_usage(store, folders, found)
    return usage


def _confirmed(question: str) -> bool:
    """Whether the user agrees. Raises `InputError` if there is nobody to ask."""
    if not _is_terminal():
        raise InputError("--yes: is needed to delete, because there is no terminal to ask in")
    return typer.confirm(question)


def _is_terminal() -> bool:
    return sys.stdin.isatty()
