"""Stores in the terminal and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from tombola.experiments.store_pruning import Removal
from tombola.experiments.store_usage import StoreUsage
from tombola.report.console import print_text
from tombola.report.fitting_table import print_table
from tombola.report.formatting import text_table
from tombola.runs.file_kinds import KINDS
from tombola.runs.store_contents import total_bytes
from tombola.runs.stored_file import StoredFile
from tombola.utils.ages import age_text
from tombola.utils.text import byte_size, plural

NOBODY = "no experiment"
"""In place of a results folder: what no experiment refers to."""

SHOWN = 10
"""At most so many damaged outcomes are named."""

NOUNS = {
    "checkpoints": ("checkpoint of an unfinished training", "checkpoints of unfinished trainings"),
    "damaged": ("damaged outcome", "damaged outcomes"),
    "leftovers": (
        "file being written, or left by a killed process",
        "files being written, or left by killed processes",
    ),
    "others": ("other file, which is not tombola's", "other files, which are not tombola's"),
}
"""What the files in these lists of a summary are, of one and of several."""

MAY_GO = {
    "outcomes": "outcomes that no experiment refers to",
    "checkpoints": "checkpoints of finished, or old, trainings",
    "damaged": "damaged outcomes",
    "leftovers": "leftovers of killed processes",
}
"""What may be deleted of each kind."""


def usage_summary(usage: StoreUsage, now: float) -> dict[str, Any]:
    """What `tombola store show --json` prints, but for the store's name. Ages are in seconds."""
    contents = usage.contents

    def sizes(keys: Iterable[str]) -> dict[str, int]:
        files = [contents.outcomes[key] for key in keys]
        return {"outcomes": len(files), "bytes": total_bytes(files)}

    def named(files: Sequence[StoredFile]) -> list[dict[str, Any]]:
        return [{"file": file.path, "bytes": file.bytes, "age": max(0.0, now - file.modified)} for file in files]

    broken = [
        {**entry, "reason": reason}
        for key, reason in usage.damaged.items()
        for entry in named([contents.outcomes[key]])
    ]
    return {
        **sizes(contents.outcomes),
        "experiments": [{"folder": str(folder), **sizes(keys)} for folder, keys in usage.experiments.items()],
        "unreferenced": sizes(usage.unreferenced),
        "checkpoints": named(contents.checkpoints),
        "damaged": broken + named(contents.damaged),
        "leftovers": named(contents.leftovers),
        "others": named(contents.others),
        "undecided": usage.undecided,
    }


def show_usage(console: Console, store: str, summary: dict[str, Any]) -> None:
    """Print such a summary."""
    print_text(console, f"{store}: {plural(summary['outcomes'], 'outcome')}, {byte_size(summary['bytes'])}", "bold")
    table = text_table(["experiment", "outcomes", "size"], left=("experiment",), gap=2)
    for each in [*summary["experiments"], {"folder": NOBODY, **summary["unreferenced"]}]:
        table.add_row(Text(each["folder"]), f"{each['outcomes']:,}", byte_size(each["bytes"]))
    print_table(console, table)
    if len(summary["experiments"]) > 1:
        print_text(console, "Experiments share the outcomes that several of them refer to.", "dim")
    for name, (one, several) in NOUNS.items():
        if files := summary[name]:
            oldest, size = max(file["age"] for file in files), sum(file["bytes"] for file in files)
            noun = one if len(files) == 1 else several
            print_text(console, f"{len(files):,} {noun}: {byte_size(size)}, the oldest {age_text(oldest)} old.")
    for file in summary["damaged"][:SHOWN]:
        print_text(console, f"  {file['file']}" + (f": {file['reason']}" if "reason" in file else ""), "yellow")


def show_removals(console: Console, chosen: Sequence[Removal], now: float) -> None:
    """Print what may be deleted, by kind, and its size."""
    counts, sizes, oldest = Counter[str](), Counter[str](), Counter[str]()
    for removal in chosen:
        counts[removal.kind] += 1
        sizes[removal.kind] += removal.file.bytes
        oldest[removal.kind] = max(oldest[removal.kind], int(now - removal.file.modified))
    columns = ("may go", "files", "size", "oldest")
    table = text_table(columns, left=columns[:1], gap=2, always=columns)
    for kind in KINDS:
        if counts[kind]:
            table.add_row(MAY_GO[kind], f"{counts[kind]:,}", byte_size(sizes[kind]), age_text(oldest[kind]))
    print_table(console, table)
