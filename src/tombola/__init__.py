"""tombola finds, proves and ships winning lottery tickets.

A winning ticket is a sparse subnetwork that, trained from its original initial weights, matches the dense network's
accuracy in no more iterations with far fewer weights (Frankle & Carbin 2019, arXiv 1803.03635).
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from tombola._find_ticket import SearchResult, find_ticket
from tombola._plan_experiment import plan_experiment
from tombola._run_experiment import run_experiment
from tombola.engines.custom.step_counter import evaluate, mark
from tombola.experiments.recipe import Recipe, load_recipe, recipes
from tombola.exports.compaction import compact
from tombola.exports.examples import Examples
from tombola.exports.export import export
from tombola.exports.runtime import load_sparse, sparse
from tombola.pruning.hold import held, hold
from tombola.pruning.mask import Mask, prunable
from tombola.pruning.prune_model import prune
from tombola.report.page import write_comparison, write_report
from tombola.report.printable_results import PrintableResults as Results
from tombola.report.printable_results import read_results
from tombola.stats.summarise import summarise
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError
from tombola.utils.former_names import accept_former_modules

__all__ = [
    "Examples",
    "InputError",
    "Mask",
    "Recipe",
    "Results",
    "SearchResult",
    "Ticket",
    "compact",
    "evaluate",
    "export",
    "find_ticket",
    "held",
    "hold",
    "load_recipe",
    "load_sparse",
    "mark",
    "plan_experiment",
    "prunable",
    "prune",
    "read_results",
    "recipes",
    "run_experiment",
    "sparse",
    "summarise",
    "write_comparison",
    "write_report",
]

accept_former_modules()

_MOVED = {
    "Ask": "studies.request:RunRequest",
    "Data": "zoo.datasets.description:Data",
    "Engine": "engines:Engine",
    "Experiment": "experiments.recipe_experiment:RecipeExperiment",
    "Found": "_find_ticket:SearchResult",
    "Held": "pruning.hold:Held",
    "Levels": "report.printable_results:PrintableResults",
    "Measures": "runs.outcome:Measures",
    "Network": "zoo.models.description:Network",
    "Outcome": "runs.outcome:Outcome",
    "Run": "runs.run:Run",
    "Start": "zoo.models.description:Start",
    "Store": "runs.store:Store",
    "Study": "studies.request:Study",
    "Training": "runs.run:Training",
    "conduct": "studies.conductor:conduct",
    "engine": "engines:engine",
    "iterative_search": "studies.search:iterative_search",
    "one_shot_search": "studies.search:one_shot_search",
    "perform": "_run_experiment:run_experiment",
    "reinit": "studies.controls:reinit",
}
"""Names that used to be here, and where they are now."""


def __getattr__(name: str) -> Any:
    """Old names still work, with a warning that says where the thing is now."""
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, new = _MOVED[name].partition(":")
    shown = f"tombola.{new}" if new in __all__ else f"tombola.{module}.{new}"
    warnings.warn(f"tombola.{name} is deprecated: use {shown}", DeprecationWarning, stacklevel=2)
    return getattr(importlib.import_module(f"tombola.{module}"), new)
