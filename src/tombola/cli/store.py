"""The commands for stores of trained runs: show, prune, copy."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from tombola.cli.common import Json, app, handle_errors
from tombola.cli.output import err_console, out_console, print_json, print_line, print_message
from tombola.experiments.folders import named_results_folders, results_folders
from tombola.experiments.store_pruning import Removal, removals, remove
from tombola.experiments.store_usage import StoreUsage, store_usage
from tombola.report.store_tables import show_removals, show_usage, usage_summary
from tombola.runs.check_outcomes import check_outcomes
from tombola.runs.copy_outcomes import copy_outcomes
from tombola.runs.opening import open_store
from tombola.runs.store import Store
from tombola.runs.store_contents import KINDS
from tombola.utils.ages import parse_age
from tombola.utils.errors import InputError, unknown
from tombola.utils.text import byte_size, plural

StorePlace = Annotated[str, typer.Argument(envvar="TOMBOLA_STORE", help="A store of runs.")]
ResultsFolders = Annotated[
    list[Path] | None,
    typer.Option(
        "--results", metavar="FOLDER", help="Results folders, or folders of them (default: beside the store)."
    ),
]
Check = Annotated[bool, typer.Option("--check", help="Read all outcomes, to find those that are damaged.")]

DEFAULT_STORE = "results/.tombola"

store_app = typer.Typer(help="Look after stores of trained runs.", no_args_is_help=True)
app.add_typer(store_app, name="store")


@store_app.command("show")
@handle_errors
def store_show(
    place: StorePlace = DEFAULT_STORE, results: ResultsFolders = None, check: Check = False, as_json: Json = False
) -> None:
    """Show what a store has, by experiment, what no experiment refers to, and what is damaged or unfinished."""
    usage = _usage(_existing(place), _folders(place, results), check)
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
        str | None, typer.Option(metavar="AGE", help="Only what is older, such as 30d; old checkpoints too.")
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help=f"Delete no {', '.join(KINDS[:-1])} or {KINDS[-1]}.")
    ] = None,
    check: Check = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
) -> None:
    """Delete what no experiment refers to, damaged outcomes, checkpoints of finished runs, and leftovers.

    Nothing is deleted that is being trained, or that an experiment that is not finished may need.
    """
    for kind in keep or []:
        if kind not in KINDS:
            raise unknown("kind", kind, KINDS)
    age = None if older_than is None else parse_age("--older-than", older_than)
    store, folders = _existing(place), _folders(place, results)
    usage = _usage(store, folders, check)
    for line in usage.undecided:
        print_message(line, "yellow")
    if usage.unreferenced and not folders and "outcomes" not in (keep or []):
        raise InputError(
            f"{place}: no results folder is beside it, so all its outcomes would go; "
            "name those of its experiments with --results, or give --keep outcomes"
        )
    chosen = removals(usage, time.time(), age, keep or [])
    if not chosen:
        print_line("There is nothing to delete.")
        return
    show_removals(out_console, chosen, time.time())
    if not (
        yes or _confirmed(f"{plural(len(folders), 'experiment')} looked at. Delete {plural(len(chosen), 'file')}?")
    ):
        print_line("Nothing was deleted.")
        return
    # An experiment may have been started since it was asked.
    again = _usage(store, _folders(place, results), check=False, damaged=usage.damaged)
    still = {removal.file for removal in removals(again, time.time(), age, keep or [])}
    _delete(store, [removal for removal in chosen if removal.file in still])


def _delete(store: Store, chosen: list[Removal]) -> None:
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
    source: Annotated[str, typer.Argument(metavar="FROM", help="A store of runs.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="Another store; it is made if it does not exist.")],
    results: Annotated[
        list[Path] | None,
        typer.Option("--results", metavar="FOLDER", help="Only the outcomes of these experiments (default: all)."),
    ] = None,
) -> None:
    """Copy outcomes to another store. The same command resumes.

    Exit status: 0; 1 if outcomes are damaged, which are left out.
    """
    origin, destination = _existing(source), open_store(target)
    keys = None
    if results:
        usage = _usage(origin, named_results_folders(results), check=False)
        keys = set().union(*usage.experiments.values())
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
    store = open_store(place)
    if not store.exists():
        parts = sorted(path.parent.name for path in store.folder.glob("process-*/runs"))
        hint = f"; it has those of a distributed job's processes: {', '.join(parts)}" if parts else ""
        raise InputError(f"{place} is not a store of runs: it has no folder runs{hint}")
    return store


def _folders(place: str, results: list[Path] | None) -> list[Path]:
    """The results folders of a store's experiments: those named, or beside it; for a bucket, those in `results`."""
    if results:
        return named_results_folders(results)
    if "://" in place:
        return [*results_folders(Path(DEFAULT_STORE).parent)]
    store = Path(place)
    return [*results_folders((store if store.name else store.resolve()).parent)]


def _usage(store: Store, folders: list[Path], check: bool, damaged: dict[str, str] | None = None) -> StoreUsage:
    """Who uses what in `store`; with `check`, all outcomes are read. `damaged` are known to be."""
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
