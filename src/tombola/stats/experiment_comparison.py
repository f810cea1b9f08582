"""Several experiments side by side, as `tombola compare --json` prints them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tombola.experiments.results import Results
from tombola.stats.summary import summarise
from tombola.utils.differences import differences


def labels(folders: Sequence[Path], names: Sequence[str]) -> list[str]:
    """A label for each experiment, all different: their recipes' names; where these are not enough, their folders';
    else the folders' paths, numbered if the same folder is there twice."""
    full = [folder.resolve() for folder in folders]
    numbered = [f"{folder} ({number})" for number, folder in enumerate(full, 1)]
    candidates = (list(names), [folder.name for folder in full], [str(folder) for folder in full], numbered)
    return next(column for column in candidates if len(set(column)) == len(column))


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
