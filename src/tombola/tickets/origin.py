"""The origin of a ticket: writing its provenance, and reading from it how the ticket was trained."""

from __future__ import annotations

from typing import Any

from tombola.experiments.search_config import SearchConfig
from tombola.runs.outcome import Measures
from tombola.studies.request import RunRequest
from tombola.utils.libraries import versions


def provenance_of(
    config: SearchConfig,
    replicate: int,
    request: RunRequest,
    matrix_weights: int | None,
    measures: Measures | None,
    dense: Measures | None,
    verdict: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The provenance of the ticket of `request`, with the results of its run and of the `dense` network's run, as
    JSON values. Parts that are None are left out."""
    parts = {
        "recipe": config.resolved(),
        "replicate": replicate,
        "level": request.level,
        "run": request.run.description,
        "key": request.run.key,
        "matrix_weights": matrix_weights,
        "measures": measures and measures.model_dump(),
        "dense": dense and dense.model_dump(),
        "verdict": verdict,
        "versions": versions(),
    }
    return {name: value for name, value in parts.items() if value is not None}


def own_training(provenance: object) -> str | None:
    """The function that trained the ticket, according to its file; None if it was a recipe, or if this is not stated.
    Files from older versions do not have the function's name."""
    match provenance:
        case {"recipe": {"functions": {"train": str(train)}}}:
            return train
        case {"recipe": _}:
            return None
        case {"figures": _}:
            return "a training function"
        case {"search": _}:
            return "a training with a callback"
    return None
