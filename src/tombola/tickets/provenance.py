"""Record: what a ticket file says of where it came from; validated, and made into runs again.

It is a file's word. Nothing in it is believed: the recipe is made into runs as it was for the experiment, and these
must be what the rest of the record says.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError, field_validator

from tombola.experiments.experiment import Experiment
from tombola.experiments.recipe import Recipe, parse_recipe
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
"""How far initial weights may be from those in the file, see `tombola.tickets.reproduction.relative_distance`:
another version of torch may round otherwise."""

TRAINED_TOLERANCE = 1e-3
"""The same for weights that were trained to where the ticket starts: rounding grows on the way."""

CONTRADICTION = "its record contradicts itself"


class Provenance(FrozenModel):
    """The parts of a ticket's provenance that can be checked; what else there is, is ignored."""

    model_config = ConfigDict(extra="ignore")

    recipe: dict[str, Any]
    replicate: int = Field(ge=0)
    level: int = Field(ge=1)
    run: dict[str, Any]
    """The description of the run that trained the ticket."""
    key: str
    measures: Measures
    """What came of it."""
    dense: Measures | None = None
    """What came of the dense network of the same replicate; older files do not say it."""
    versions: dict[str, str] = {}

    @field_validator("measures", "dense")
    @classmethod
    def _complete(cls, measures: Measures | None) -> Measures | None:
        if measures is not None and measures.diverged:
            raise ValueError("that of a training that diverged is no ticket's")
        if measures is not None and None in measures.model_dump().values():
            raise ValueError("figures are missing")
        return measures


@dataclass(frozen=True)
class TicketClaim:
    """A ticket, and the runs that its record is about."""

    path: Path
    ticket: Ticket
    record: Provenance
    recipe: Recipe
    dense: Run
    """The dense network's, from the beginning."""
    k: int
    """The iteration that the ticket is rewound to."""
    data_dir: Path | None = None
    """Where data is looked for first."""

    def check_start(self, start: State) -> None:
        """Raises `InputError` where `start`, what the ticket's run starts from here, is not what the file holds."""
        off = relative_distance(self.ticket.start, start)
        if off <= (TRAINED_TOLERANCE if self.k else DRAWN_TOLERANCE):
            return
        how = f"training {self.k} iterations" if self.k else "drawing"
        raise InputError(
            f"{self.path}: its weights are not those that its record leads to: {how} as it says gives others here, "
            f"{off:.2g} of a layer's length away; the file was altered, or needs the engine and the versions it was "
            f"made with"
        )


def read_claim(path: str | Path, data_dir: Path | None = None, trust: bool = False) -> TicketClaim:
    """Read a ticket file and what it claims; data is looked for in `data_dir` first.

    Networks by import path and timm's are code that the file names: they are imported only if it is to be `trust`ed.
    Raises `InputError` when there is no ticket there, its record is not complete or contradicts itself, nothing is
    claimed in it that can be checked, and when the data here is not the one it was made with.
    """
    try:
        return _read_claim(Path(path), data_dir, trust)
    except InputError as error:  # it may quote what is in the file
        raise InputError(printable(str(error))) from error


def _read_claim(path: Path, data_dir: Path | None, trust: bool) -> TicketClaim:
    ticket = Ticket.load(path)
    record = _record(ticket, path)
    recipe = parse_recipe(record.recipe, source=f"{path}: its recipe")
    _check_claimed(recipe, record, path, trust)
    _check_network(recipe, record, ticket, path)
    try:
        experiment = Experiment(recipe.model_copy(update={"transfer": None, "stability": None}), data_dir)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    dense, k = experiment.dense(record.replicate), _rewound(experiment, recipe, record, data_dir, path)
    if ticket.mask.shapes != dense.mask.shapes:
        raise InputError(f"{path}: its mask is of another network than that of its recipe, {recipe.model.name}")
    run = (dense.after(dense.until(k), begin=k) if k else dense).masked(ticket.mask)
    _check_run(run, record, path)
    _check_level(recipe, record.level, dense, ticket.mask, path)
    _check_figures(record, run, path)
    return TicketClaim(path, ticket, record, recipe, dense, k, data_dir)


def _record(ticket: Ticket, path: Path) -> Provenance:
    given: Any = ticket.provenance
    if isinstance(given, dict) and "recipe" not in given and ("figures" in given or "search" in given):
        raise InputError(
            f"{path} was found with a training function that is not in the file: to check it, call find_ticket, or "
            f"train with the callback, again with another seed"
        )
    try:
        return Provenance.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        where, message = ".".join(map(str, found["loc"])), found["msg"].removeprefix("Value error, ")
        what = f'"{where}" is missing' if found["type"] == "missing" else f"{where or 'it'}: {message}"
        raise InputError(f"{path}: what it says of where it came from is not complete: {what}") from None


def _check_claimed(recipe: Recipe, record: Provenance, path: Path, trust: bool) -> None:
    if recipe.no_ticket is not None:
        raise InputError(f"{path}: it claims nothing to check, as it is no lottery ticket: {recipe.no_ticket}")
    lasts = {"replicate": recipe.replicates - 1, "level": recipe.search.levels}
    for name, last in lasts.items():
        if (there := getattr(record, name)) > last:
            raise InputError(f"{path}: {CONTRADICTION}: {name} is {there}, and the last of its recipe is {last}")
    if recipe.model.name not in MODELS and not trust:
        raise InputError(
            f'{path}: its network "{recipe.model.name}" is code from outside tombola that would be imported and run; '
            f"if you know that code and trust the file, say --trust"
        )


def _check_network(recipe: Recipe, record: Provenance, ticket: Ticket, path: Path) -> None:
    """Before any network is made: what fits no mask in the file might not fit in the memory either."""
    if recipe.model.name not in MODELS:
        return  # it is trusted
    try:
        said = Network.model_validate_json(json.dumps(record.run["start"]["network"]))
    except (KeyError, TypeError, ValidationError):
        raise InputError(f"{path}: what it says of where it came from is not complete: run.start.network") from None
    try:
        check_network(describe(recipe.model.name, recipe.model.options, said.inputs, said.classes), ticket.mask)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _rewound(experiment: Experiment, recipe: Recipe, record: Provenance, data_dir: Path | None, path: Path) -> int:
    """The iteration k: where the recipe leaves that to the experiment, the record says what came of it."""
    dense = experiment.dense(record.replicate)
    if recipe.rewind.to != AUTO:
        first = next(experiment.study(record.replicate))
        return 0 if isinstance(first, list) or first.branch != "trunk" else first.run.end or 0
    k = record.run.get("begin", 0)
    if not isinstance(k, int) or not 0 <= k < dense.last:
        raise InputError(f"{path}: run.begin: should be an iteration of the training, not {k!r:.60}")
    assert recipe.stability is not None, "a recipe that leaves k to the experiment has candidates"
    examples, batch = len(prepare(dense.data, data_dir).train), dense.training.batch_size
    candidates = [length.iterations_of(examples, batch) for length in recipe.stability.candidates]
    if k not in candidates:
        raise InputError(
            f"{path}: {CONTRADICTION}: run.begin is {k}, and the candidates of its recipe are "
            f"{', '.join(map(str, candidates)):.60}"
        )
    return k


def _check_run(run: Run, record: Provenance, path: Path) -> None:
    """Raises `InputError` where the record's run is not `run`, the one that its recipe and its mask make."""
    description = json.loads(json.dumps(run.description))
    found = differences([record.run, description])
    if "data.digest" in found:
        raise InputError(
            f'{path}: the data set "{run.data.name}" here is not the one of its record: the digest of its content '
            f"is {run.data.digest}, and should be {found['data.digest'][0]}"
        )
    if "mask" in found:
        raise InputError(f"{path}: {CONTRADICTION}: the mask in the file is not that of its run")
    if found:
        where, (there, here) = min(found.items())
        raise InputError(
            f"{path}: {CONTRADICTION}: run.{where} is {there!r:.60}, and its recipe makes {here!r:.60} here"
        )
    if record.key != run.key:
        raise InputError(f"{path}: {CONTRADICTION}: the key of its run is {run.key}, not {record.key}")


def _check_level(recipe: Recipe, level: int, dense: Run, mask: Mask, path: Path) -> None:
    """Raises `InputError` where the recipe's search leaves other numbers of weights at that level.

    In rounds and in one shot it leaves as many as the schedule says, to the weight; other methods are not looked at.
    """
    if recipe.search.method not in ("iterative", "one-shot"):
        return
    pruner = recipe.search.pruner(build(dense.start))
    goal = pruner.left(dense.mask)
    for _ in range(level):
        goal = pruner.scope.keeps(goal)
    for group, left in pruner.left(mask).items():
        if left != goal[group]:
            layers = group[0] if len(group) == 1 else f"{group[0]} to {group[-1]}"
            raise InputError(
                f"{path}: {CONTRADICTION}: level {level} of its recipe leaves {goal[group]:,} of {layers}, and its "
                f"mask has {left:,}"
            )
    pruned = {name for group in goal for name in group}
    for name, kept in mask.items():
        if name not in pruned and not kept.all():
            raise InputError(f"{path}: {CONTRADICTION}: its recipe does not prune {name}, and its mask does")


def _check_figures(record: Provenance, run: Run, path: Path) -> None:
    """Raises `InputError` for figures that no training has."""
    for of, measures in (("measures", record.measures), ("dense", record.dense)):
        if measures is None:
            continue
        stop, loss = measures.stop_iteration, measures.validation_loss_at_stop
        assert stop is not None, "a record's figures are complete"
        assert loss is not None, "a record's figures are complete"
        bounds: dict[str, tuple[float, float, float]] = {
            name: (0, value, 1) for name, value in measures.model_dump().items() if "accuracy" in name
        }
        bounds["iterations"] = (0, measures.iterations, run.last)
        bounds["stop_iteration"] = (0, stop, measures.iterations)
        bounds["validation_loss_at_stop"] = (0, loss, float("inf"))
        for name, (low, value, high) in bounds.items():
            if not low <= value <= high:
                raise InputError(
                    f"{path}: {CONTRADICTION}: {of}.{name} is {value!r:.60}, and should be from {low} to {high}"
                )
