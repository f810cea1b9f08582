"""Several experiments side by side, as `tombola compare --json` prints them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tombola.differences import differences
from tombola.evidence.summary import summarise
from tombola.results import Results


def labels(folders: Sequence[Path], names: Sequence[str]) -> list[str]:
    """A label for each experiment: its recipe's name; where that is not enough, its folder's; else the folder's path,
    numbered if the same folder is there twice."""
    full = [folder.resolve() for folder in folders]
    candidates = [
        [name, folder.name, str(folder), f"{folder} ({number})"]
        for number, (name, folder) in enumerate(zip(names, full, strict=True), 1)
    ]
    counts = [Counter(column) for column in zip(*candidates, strict=True)]
    return [next(name for name, found in zip(row, counts, strict=True) if found[name] == 1) for row in candidates]


def compare(folders: Sequence[Path], results: Sequence[Results]) -> dict[str, Any]:
    """The experiments' summaries by label, and the keys at which their configurations differ, as JSON values."""
    named = labels(folders, [found.recipe.name for found in results])
    return {
        "experiments": [
            {"label": label, "folder": str(folder), "summary": summarise(found)}
            for label, folder, found in zip(named, folders, results, strict=True)
        ],
        "differences": differences([found.recipe.resolved() for found in results]),
    }
