"""tombola finds, proves and ships winning lottery tickets.

A winning ticket is a sparse subnetwork that, trained from its original initial weights, matches the dense
network's accuracy in no more iterations with far fewer weights (Frankle & Carbin 2019, arXiv 1803.03635).
"""

from tombola.conduct import conduct
from tombola.engines import Engine, engine
from tombola.errors import InputError
from tombola.evidence.levels import Levels
from tombola.evidence.summary import summarise
from tombola.experiment import Experiment
from tombola.find import Found, find_ticket
from tombola.holding import Held, held, hold
from tombola.marking import mark
from tombola.mask import Mask, prunable
from tombola.outcome import Measures, Outcome
from tombola.perform import perform
from tombola.pruning import prune
from tombola.recipe import Recipe, load_recipe, recipes
from tombola.report.page import write_comparison, write_report
from tombola.results import Results, read_results
from tombola.run import Data, Network, Run, Start, Training
from tombola.ship.compaction import compact
from tombola.ship.export import Examples, export
from tombola.ship.runtime import load_sparse, sparse
from tombola.store import Store
from tombola.studies import Ask, Study
from tombola.studies.controls import reinit
from tombola.studies.search import iterative_search, one_shot_search
from tombola.ticket import Ticket

__all__ = [
    "Ask",
    "Data",
    "Engine",
    "Examples",
    "Experiment",
    "Found",
    "Held",
    "InputError",
    "Levels",
    "Mask",
    "Measures",
    "Network",
    "Outcome",
    "Recipe",
    "Results",
    "Run",
    "Start",
    "Store",
    "Study",
    "Ticket",
    "Training",
    "compact",
    "conduct",
    "engine",
    "export",
    "find_ticket",
    "held",
    "hold",
    "iterative_search",
    "load_recipe",
    "load_sparse",
    "mark",
    "one_shot_search",
    "perform",
    "prunable",
    "prune",
    "read_results",
    "recipes",
    "reinit",
    "sparse",
    "summarise",
    "write_comparison",
    "write_report",
]
