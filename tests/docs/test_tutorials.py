"""The notebooks in docs/tutorials: they run, and are committed with the outputs that they have."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tombola
from tests.support.notebooks import clean, execute, kinds, read, texts, tutorials

pytest.importorskip("nbclient")

TABLES_AND_CHARTS = {
    "figures-of-the-paper": (1, 5),
    "hypothesis-on-digits": (1, 4),
    "reading-a-verdict": (3, 0),
    "your-own-network": (3, 1),
}
"""How many each tutorial shows, at least."""

LARGEST = 500_000
"""Bytes of a notebook."""

every_tutorial = pytest.mark.parametrize("path", tutorials(), ids=lambda path: path.stem)


def code(notebook: Any) -> Iterator[str]:
    return (cell.source for cell in notebook.cells if cell.cell_type == "code")


def test_every_tutorial_is_tested() -> None:
    assert {path.stem for path in tutorials()} == TABLES_AND_CHARTS.keys()


@every_tutorial
def test_a_tutorial_runs_and_shows_what_is_committed(path: Path) -> None:
    executed = execute(path)
    assert kinds(executed) == kinds(read(path)), "`make tutorials` renews the outputs"
    assert not list(absolute_paths(executed))


@every_tutorial
def test_committed_outputs_have_tables_and_pictures(path: Path) -> None:
    shown = Counter(
        kind for outputs in kinds(read(path)) for _, stream, *media in outputs for kind in (stream, *media)
    )
    assert shown["stderr"] == 0
    tables, charts = TABLES_AND_CHARTS[path.stem]
    assert sum("<table>" in text for text in texts(read(path))) >= tables
    assert shown["image/svg+xml"] >= charts
    assert path.stat().st_size < LARGEST


@every_tutorial
def test_committed_outputs_do_not_change_from_one_execution_to_the_next(path: Path) -> None:
    notebook = read(path)
    cleaned = copy.deepcopy(notebook)
    clean(cleaned)
    assert notebook == cleaned
    assert not list(absolute_paths(notebook))


@every_tutorial
def test_tutorials_use_public_names(path: Path) -> None:
    used = {name for source in code(read(path)) for name in re.findall(r"\btombola\.([A-Za-z_]+)\(", source)}
    assert used
    assert used <= set(tombola.__all__)


def absolute_paths(notebook: Any) -> Iterator[str]:
    """Those of the machine that executed the notebook."""
    for text in texts(notebook):
        yield from re.findall(r"(?<![\w:.<])/(?:tmp|home|root|work|usr|var|opt|private|Users)/\S*", text)
