"""tombola finds, proves and ships winning lottery tickets.

A winning ticket is a sparse subnetwork that, trained from its original initial weights, matches the dense network's
accuracy in no more iterations with far fewer weights (Frankle & Carbin 2019, arXiv 1803.03635).
"""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from importlib import metadata
from typing import TYPE_CHECKING, Any

from tombola.utils.former_names import accept_former_modules

if TYPE_CHECKING:
    from tombola._find_ticket import SearchResult, find_ticket
    from tombola._plan_experiment import plan_experiment
    from tombola._run_experiment import run_experiment
    from tombola.engines.custom.step_counter import evaluate, mark
    from tombola.experiments.recipe import Recipe, load_recipe
    from tombola.experiments.recipe_files import recipes
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

_PUBLIC = {
    "Examples": "exports.examples:Examples",
    "InputError": "utils.errors:InputError",
    "Mask": "pruning.mask:Mask",
    "Recipe": "experiments.recipe:Recipe",
    "Results": "report.printable_results:PrintableResults",
    "SearchResult": "_find_ticket:SearchResult",
    "Ticket": "tickets.ticket:Ticket",
    "compact": "exports.compaction:compact",
    "evaluate": "engines.custom.step_counter:evaluate",
    "export": "exports.export:export",
    "find_ticket": "_find_ticket:find_ticket",
    "held": "pruning.hold:held",
    "hold": "pruning.hold:hold",
    "load_recipe": "experiments.recipe:load_recipe",
    "load_sparse": "exports.runtime:load_sparse",
    "mark": "engines.custom.step_counter:mark",
    "plan_experiment": "_plan_experiment:plan_experiment",
    "prunable": "pruning.mask:prunable",
    "prune": "pruning.prune_model:prune",
    "read_results": "report.printable_results:read_results",
    "recipes": "experiments.recipe_files:recipes",
    "run_experiment": "_run_experiment:run_experiment",
    "sparse": "exports.runtime:sparse",
    "summarise": "stats.summarise:summarise",
    "write_comparison": "report.page:write_comparison",
    "write_report": "report.page:write_report",
}
"""The public names, and where they are defined. Each is imported, and torch with it, when it is first used."""

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
    """The version; or import a public name. Old names still work, with a warning that says where the thing is now."""
    if name == "__version__":
        value = globals()[name] = metadata.version("tombola")
        return value
    if name in _PUBLIC:
        value = globals()[name] = _imported(_PUBLIC[name])
        return value
    if name in _MOVED:
        new = _MOVED[name].partition(":")[2]
        shown = f"tombola.{new}" if new in __all__ else f"tombola.{_MOVED[name].replace(':', '.')}"
        warnings.warn(f"tombola.{name} is deprecated: use {shown}", DeprecationWarning, stacklevel=2)
        return _imported(_MOVED[name])
    if name in {module.name for module in pkgutil.iter_modules(__path__)}:
        for place in _PUBLIC.values():  # after `import tombola`, their modules can be used by their full names
            _imported(place)
        return importlib.import_module(f"tombola.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _imported(place: str) -> Any:
    """The object at `module:name` in this package."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"tombola.{module}"), name)
