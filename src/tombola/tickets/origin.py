"""The origin of a ticket: its provenance, whoever trained it, and what that says about the training."""

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
    """The provenance of the ticket of `request`, with the results of its run and of the `dense` network's, as JSON
    values. What is None is left out."""
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
    """What trained the ticket, according to a file, if that was no recipe; None if it was, or is not said. Files of
    former versions do not have its name."""
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
