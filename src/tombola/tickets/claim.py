"""The claim of a ticket: its provenance, which is untrusted, turned back into runs."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict, Field, field_validator
from torch import Tensor

from tombola.engines import Engine
from tombola.experiments.metric import Metric
from tombola.experiments.search_config import SearchConfig
from tombola.experiments.workload import Workload
from tombola.pruning.mask import Mask, State
from tombola.pruning.pruner import Pruner
from tombola.pruning.scopes import goals
from tombola.pruning.structures import Structure, UnitStructure
from tombola.runs.outcome import Measures
from tombola.runs.run import BaseRun, Run
from tombola.studies.request import Study
from tombola.tickets.reproduction import relative_distance
from tombola.tickets.ticket import Ticket
from tombola.utils.differences import differences
from tombola.utils.errors import InputError
from tombola.utils.frozen_model import FrozenModel

DRAWN_TOLERANCE = 1e-5
"""The largest `tombola.tickets.reproduction.relative_distance` of initial weights from those in the file, because
versions of torch may round differently."""

TRAINED_TOLERANCE = 1e-3
"""The same for weights that were trained before the ticket starts, because training amplifies rounding."""


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
    """The results of the dense network of the same replicate; None in older files."""
    versions: dict[str, str] = {}

    @field_validator("measures", "dense")
    @classmethod
    def _complete(cls, measures: Measures | None) -> Measures | None:
        if measures is not None and measures.diverged:
            raise ValueError("a ticket's training has not diverged")
        return measures


@dataclass(frozen=True)
class TicketClaim(ABC):
    """A ticket, and the runs that its provenance describes."""

    path: Path
    ticket: Ticket
    provenance: Provenance
    config: SearchConfig
    workload: Workload
    dense: Any
    """The run of the dense network, from the first iteration."""
    k: int
    """The iteration that the ticket is rewound to."""

    @property
    @abstractmethod
    def length(self) -> int:
        """The length of the dense network's training, in iterations."""

    @property
    @abstractmethod
    def evaluation_interval(self) -> int:
        """Iterations between evaluations."""

    @property
    @abstractmethod
    def end_figure(self) -> str | None:
        """The name in `Measures` of the figure that is measured again for the trained weights in the file; None if
        this is not possible."""

    parallel: ClassVar[bool]
    """Whether several runs may be trained at a time."""
    relative_tolerance: ClassVar[bool]
    """Whether the minimum tolerances are relative to figures; otherwise, they are accuracies or losses."""

    @abstractmethod
    def engine(self, name: str, device: str, sharing: int = 1) -> Engine[Any]:
        """The engine that trains the runs; `name` and `device` choose one if there are several. `sharing` is the
        number of workers that use the same device."""

    def choose_device(self, device: str, engine: str, workers: int | None, repeats: int, reinit: int) -> str:  # noqa: ARG002
        """The device on which this number of repeats is trained; `device` may be `auto`."""
        return device

    @abstractmethod
    def trunk(self) -> Study[BaseRun]:
        """A study that trains to the rewinding point, and returns the rest of the dense network's run."""

    @abstractmethod
    def measure_trained(self, device: str) -> float | None:
        """The `end_figure` of the trained weights in the file, which are finite. Raises `InputError` if they belong
        to another network."""

    @property
    def code(self) -> str:
        """The fingerprint of the code outside tombola that trains the runs; empty if there is no such code."""
        return ""

    @property
    def draws_anew(self) -> bool:
        """Whether other seeds give other initial weights."""
        return True

    @property
    def metric(self) -> Metric:
        """The judged metric."""
        return self.config.judged([self.provenance.measures])

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


def inconsistent(what: str) -> InputError:
    """The error of a provenance whose parts contradict each other."""
    return InputError(f"its provenance is inconsistent: {what}")


def check_claimed(config: SearchConfig, provenance: Provenance) -> None:
    """Raises `InputError` unless the experiment finds lottery tickets, and has this replicate and level."""
    if config.no_ticket_reason is not None:
        raise InputError(f"it is no lottery ticket and makes no claim to verify: {config.no_ticket_reason}")
    for name, last in (("replicate", config.replicates - 1), ("level", config.search.levels)):
        if (stated := getattr(provenance, name)) > last:
            raise inconsistent(f"{name} is {stated}, and the last of its recipe is {last}")


def check_run(run: BaseRun, provenance: Provenance) -> None:
    """Raises `InputError` unless the stated run equals `run`, which is made from the recipe and the mask."""
    found = differences([provenance.run, json.loads(json.dumps(run.description))])
    if "data.digest" in found:
        stated, here = found["data.digest"]
        named = f'the dataset "{run.data.name}"' if isinstance(run, Run) else "the dataset"
        raise InputError(f"{named} differs from the one in its provenance: its digest is {here}, not {stated}")
    if "mask" in found:
        raise inconsistent("the mask in the file is not the mask of its run")
    if found:
        where, (stated, here) = min(found.items())
        raise inconsistent(f"run.{where} is {stated!r:.60}, and its recipe gives {here!r:.60} here")
    if provenance.key != run.key:
        raise inconsistent(f"the key of its run is {run.key}, not {provenance.key}")


def check_level(pruner: Pruner, level: int, dense: Mask, mask: Mask) -> None:
    """Raises `InputError` unless the mask has the number of weights that the search leaves at this level."""
    _check_units(pruner.structure, dense, mask)
    expected = goals(pruner.scope, pruner.units_left(dense), level)[-1]
    for group, left in pruner.units_left(mask).items():
        if left > expected[group] or (pruner.exact and left < expected[group]):
            layers = group[0] if len(group) == 1 else f"{group[0]} to {group[-1]}"
            raise inconsistent(
                f"level {level} of its recipe keeps {expected[group]:,} weights of {layers}, and its mask {left:,}"
            )
    pruned = {name for group in expected for name in pruner.structure.scored_layers(group)}
    for name, kept in mask.layers.items():
        if name not in pruned and not kept.all():
            raise inconsistent(f"its recipe does not prune {name}, but its mask does")


def _check_units(structure: Structure, dense: Mask, mask: Mask) -> None:
    """Refuse a mask from an older version in which units were rows of single layers, not coupled units."""
    if not isinstance(structure, UnitStructure) or structure.what == "blocks":
        return
    if _of_rows(mask) and structure.units.keep(dense, structure.units.left(mask)) != mask:
        raise InputError(
            f"its {structure.what} were pruned by rows of single layers, as in earlier versions of tombola; it can "
            "only be verified with these"
        )


def _of_rows(mask: Mask) -> bool:
    """Whether rows or columns are pruned, but not both in the same layer."""
    pruned = [kept for kept in mask.layers.values() if not kept.all()]
    return bool(pruned) and all(kept.dim() > 1 and (_whole(kept) or _whole(kept.transpose(0, 1))) for kept in pruned)


def _whole(kept: Tensor) -> bool:
    """Whether each row is kept or pruned as a whole."""
    rows = kept.flatten(1)
    return torch.equal(rows.any(1), rows.all(1))
