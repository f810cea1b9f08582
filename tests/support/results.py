"""Writers of results folders, without a search."""

from __future__ import annotations

from pathlib import Path

from tombola.experiments.recipe import Recipe
from tombola.experiments.results_collector import ResultsCollector
from tombola.experiments.results_writer import ResultsWriter
from tombola.runs.initial_state import StateLoader, initial_state, no_stored_states


def writer_of(
    folder: Path, recipe: Recipe, command: str | None = None, load_state: StateLoader = no_stored_states
) -> ResultsWriter:
    """Writes the results of a recipe to `folder`."""
    return ResultsWriter(
        folder, ResultsCollector(recipe, lambda start: initial_state(start, load_state), None, command)
    )
