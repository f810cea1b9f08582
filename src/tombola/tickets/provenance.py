"""Provenance: where a ticket comes from, according to its file; validated, and made into runs again.

It is untrusted. Its recipe is made into runs as the experiment made them, and the rest of it must agree with these.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError, field_validator

from tombola.experiments.recipe import Recipe, parse_recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.experiments.results_schema import FIGURES
from tombola.experiments.sections import AUTO
from tombola.pruning.mask import Mask, State
from tombola.runs.outcome import Measures
from tombola.runs.run import Run
from tombola.tickets.reproduction import relative_distance
from tombola.tickets.safe_init import check_network
from tombola.tickets.ticket import Ticket
from tombola.utils.differences import differences
from tombola.utils.errors import InputError
from tombola.utils.frozen_model import FrozenModel
from tombola.utils.text import printable
from tombola.zoo.datasets import prepare
from tombola.zoo.models import MODELS, build, describe
from tombola.zoo.models.description import Network

DRAWN_TOLERANCE = 1e-5
"""The largest `tombola.tickets.reproduction.relative_distance` of initial weights from those in the file: versions of
torch may round differently."""

TRAINED_TOLERANCE = 1e-3
"""The same for weights that were trained before the ticket starts: training amplifies rounding."""


class Provenance(FrozenModel):
    """The parts of a ticket's provenance that can be verified; others are ignored."""

    model_config = ConfigDict(extra="ignore")

    recipe: dict[str, Any]
    replicate: int = Field(ge=0)
    level: int = Field(ge=1)
    run: dict[str, Any]
    """The description of the run that trained the ticket."""
    key: str
    measures: Measures
    """The results of this run."""
    dense: Measures | None = None
    """The results of the dense network of the same replicate; missing in older files."""
    versions: dict[str, str] = {}

    @field_validator("measures", "dense")
    @classmethod
    def _complete(cls, measures: Measures | None) -> Measures | None:
        if measures is not None and measures.diverged:
            raise ValueError("a ticket's training has not diverged")
        if measures is not None and any(measures[name] is None for name in FIGURES):
            raise ValueError("figures are missing")
        return measures


@dataclass(frozen=True)
class TicketClaim:
    """A ticket, and the runs that its provenance describes."""

    path: Path
    ticket: Ticket
    provenance: Provenance
    recipe: Recipe
    dense: Run
    """The run of the dense network, from the first iteration."""
    k: int
    """The iteration that the ticket is rewound to."""
    data_dir: str | Path | None = None
    """The folder that is searched for data first."""

    def check_start(self, start: State) -> None:
        """Raises `InputError` unless `start`, the recomputed initial state of the ticket's run, matches the file."""
        distance = relative_distance(self.ticket.start, start)
        if distance <= (TRAINED_TOLERANCE if self.k else DRAWN_TOLERANCE):
            return
        how = f"training {self.k} iterations" if self.k else "drawing them"
        raise InputError(
            f"{self.path}: the stored initial weights do not match its provenance: {how} here gives others "
            f"(relative distance {distance:.2g}); the file was altered, or needs the engine and versions that made it"
        )


def read_claim(path: str | Path, data_dir: str | Path | None = None, trust: bool = False) -> TicketClaim:
    """Read a ticket file and the runs that its provenance describes; data is searched in `data_dir` first.

    Networks by import path and from timm are code that the file names: they are imported only with `trust`.
    Raises `InputError` if the file is not a ticket, its provenance is incomplete, inconsistent or makes no claim that
    can be verified, or the data here differs from the data it was made with.
    """
    ticket = Ticket.load(path)
    try:
        return _claim(Path(path), ticket, data_dir, trust)
    except InputError as error:
        raise InputError(printable(f"{path}: {error}")) from error  # the message may quote the file


def _claim(path: Path, ticket: Ticket, data_dir: str | Path | None, trust: bool) -> TicketClaim:
    provenance = _provenance(ticket)
    recipe = parse_recipe(provenance.recipe, source="its recipe")
    _check_claimed(recipe, provenance, trust)
    if recipe.model.name in MODELS:  # others are trusted code
        _check_network(recipe, provenance, ticket)
    alone = {"transfer": None, "stability": None, "baseline": None}
    experiment = RecipeExperiment(recipe.model_copy(update=alone), data_dir)
    dense, k = experiment.dense(provenance.replicate), _rewound(experiment, recipe, provenance, data_dir)
    if ticket.mask.shapes != dense.mask.shapes:
        raise InputError(f"its mask does not fit the network of its recipe, {recipe.model.name}")
    run = (dense.after(dense.until(k), begin=k) if k else dense).masked(ticket.mask)
    _check_run(run, provenance)
    _check_level(recipe, provenance.level, dense, ticket.mask)
    for of, measures in (("measures", provenance.measures), ("dense", provenance.dense)):
        if measures is not None:
            _check_figures(of, measures, run.last)
    return TicketClaim(path, ticket, provenance, recipe, dense, k, data_dir)


def _inconsistent(what: str) -> InputError:
    return InputError(f"its provenance is inconsistent: {what}")


def _provenance(ticket: Ticket) -> Provenance:
    given: Any = ticket.provenance
    if isinstance(given, dict) and "recipe" not in given and ("figures" in given or "search" in given):
        raise InputError(
            "it was found with a training function, which is not in the file: to verify it, call find_ticket or "
            "train with the callback again, with another seed"
        )
    try:
        return Provenance.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        where, message = ".".join(map(str, found["loc"])), found["msg"].removeprefix("Value error, ")
        what = f'"{where}" is missing' if found["type"] == "missing" else f"{where or 'it'}: {message}"
        raise InputError(f"its provenance is incomplete: {what}") from None


def _check_claimed(recipe: Recipe, provenance: Provenance, trust: bool) -> None:
    if recipe.no_ticket_reason is not None:
        raise InputError(f"it is no lottery ticket and makes no claim to verify: {recipe.no_ticket_reason}")
    for name, last in (("replicate", recipe.replicates - 1), ("level", recipe.search.levels)):
        if (stated := getattr(provenance, name)) > last:
            raise _inconsistent(f"{name} is {stated}, and the last of its recipe is {last}")
    if recipe.model.name not in MODELS and not trust:
        raise InputError(
            f'its network "{recipe.model.name}" is code from outside tombola, which would be imported; '
            f"if you trust this code and the file, use --trust"
        )


def _check_network(recipe: Recipe, provenance: Provenance, ticket: Ticket) -> None:
    """Before any network is made: a network larger than the mask might not fit into memory."""
    try:
        stated = Network.model_validate_json(json.dumps(provenance.run["start"]["network"]))
    except (KeyError, TypeError, ValidationError):
        raise InputError("its provenance is incomplete: run.start.network") from None
    check_network(describe(recipe.model.name, recipe.model.options, stated.inputs, stated.classes), ticket.mask)


def _rewound(
    experiment: RecipeExperiment, recipe: Recipe, provenance: Provenance, data_dir: str | Path | None
) -> int:
    """The iteration k; from the provenance if the recipe leaves it to the experiment."""
    dense = experiment.dense(provenance.replicate)
    if recipe.rewind.to != AUTO:
        first = next(experiment.study(provenance.replicate))
        return 0 if isinstance(first, list) or first.branch != "trunk" else first.run.end or 0
    k = provenance.run.get("begin", 0)
    if not isinstance(k, int) or not 0 <= k < dense.last:
        raise InputError(f"run.begin: should be an iteration of the training, not {k!r:.60}")
    assert recipe.stability is not None, "a recipe that leaves k to the experiment has candidates"
    examples, batch = len(prepare(dense.data, data_dir).train), dense.training.batch_size
    candidates = [length.iterations_of(examples, batch) for length in recipe.stability.candidates]
    if k not in candidates:
        listed = ", ".join(map(str, candidates))
        raise _inconsistent(f"run.begin is {k}, and the candidates of its recipe are {listed:.60}")
    return k


def _check_run(run: Run, provenance: Provenance) -> None:
    """Raises `InputError` unless the stated run is `run`, which is made from the recipe and the mask."""
    found = differences([provenance.run, json.loads(json.dumps(run.description))])
    if "data.digest" in found:
        raise InputError(
            f'the dataset "{run.data.name}" differs from the one in its provenance: its digest is {run.data.digest}, '
            f"and should be {found['data.digest'][0]}"
        )
    if "mask" in found:
        raise _inconsistent("the mask in the file is not the mask of its run")
    if found:
        where, (stated, here) = min(found.items())
        raise _inconsistent(f"run.{where} is {stated!r:.60}, and its recipe gives {here!r:.60} here")
    if provenance.key != run.key:
        raise _inconsistent(f"the key of its run is {run.key}, not {provenance.key}")


def _check_level(recipe: Recipe, level: int, dense: Run, mask: Mask) -> None:
    """Raises `InputError` unless the mask has as many weights as the recipe's search leaves at this level: an exact
    count, except for methods other than iterative and one-shot pruning."""
    if recipe.search.method not in ("iterative", "one-shot"):
        return
    pruner = recipe.search.pruner(build(dense.start))
    expected = pruner.units_left(dense.mask)
    for _ in range(level):
        expected = pruner.scope.keeps(expected)
    for group, left in pruner.units_left(mask).items():
        if left != expected[group]:
            layers = group[0] if len(group) == 1 else f"{group[0]} to {group[-1]}"
            raise _inconsistent(
                f"level {level} of its recipe keeps {expected[group]:,} weights of {layers}, and its mask {left:,}"
            )
    pruned = {name for group in expected for name in group}
    for name, kept in mask.layers.items():
        if name not in pruned and not kept.all():
            raise _inconsistent(f"its recipe does not prune {name}, but its mask does")


def _check_figures(of: str, measures: Measures, last: int) -> None:
    """Raises `InputError` for impossible figures; `last` is the length of the training in iterations."""
    bounds: dict[str, float] = {name: 1 for name in FIGURES if "accuracy" in name}
    bounds |= {"iterations": last, "stop_iteration": measures.iterations, "validation_loss_at_stop": float("inf")}
    for name, high in bounds.items():
        value = measures.iterations if name == "iterations" else measures[name]
        if value is None or not 0 <= value <= high:
            raise _inconsistent(f"{of}.{name} is {value!r:.60}, and should be from 0 to {high}")
