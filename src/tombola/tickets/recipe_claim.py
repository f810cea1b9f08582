"""The claim of a ticket that was found by a recipe's experiment."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import ValidationError

from tombola.engines import Engine, check_engine
from tombola.engines import engine as named_engine
from tombola.engines.determinism import reproducible
from tombola.engines.device_choice import Demand, choose_device
from tombola.engines.eager import ModuleLearner
from tombola.engines.precision import matmul_precision
from tombola.experiments.recipe import Recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.experiments.results_schema import FIGURES
from tombola.experiments.sections import AUTO
from tombola.runs.outcome import Measures
from tombola.runs.run import Run
from tombola.studies.request import Study
from tombola.studies.rewinding import train_trunk
from tombola.tickets.claim import Provenance, TicketClaim, check_claimed, check_level, check_run, inconsistent
from tombola.tickets.safe_init import check_network
from tombola.tickets.ticket import Ticket
from tombola.tickets.user_code import require_trust
from tombola.utils.errors import InputError
from tombola.zoo.datasets import prepare
from tombola.zoo.models import MODELS, build, describe
from tombola.zoo.models.description import Network


@dataclass(frozen=True)
class RecipeClaim(TicketClaim):
    """A ticket that was found by a recipe; engines train its runs."""

    config: Recipe
    dense: Run
    data_dir: str | Path | None = None
    """The folder that is searched for data first."""
    parallel: ClassVar[bool] = True
    relative_tolerance: ClassVar[bool] = False

    @property
    def length(self) -> int:
        return self.dense.last

    @property
    def evaluation_interval(self) -> int:
        return self.dense.training.evaluate_every.iterations

    @property
    def end_figure(self) -> str:
        return "test_accuracy"

    def engine(self, name: str, device: str, sharing: int = 1) -> Engine[Any]:
        return named_engine(name, self.data_dir, device, sharing)

    def choose_device(self, device: str, engine: str, workers: int | None, repeats: int, reinit: int) -> str:
        check_engine(engine, device)
        dense, sparse = 1 + repeats, 1 + repeats * (1 + reinit)
        density = (dense + sparse * self.ticket.mask.density) / (dense + sparse)
        return choose_device(device, engine, workers, lambda: Demand.of(self.dense, [dense + sparse], density))

    def trunk(self) -> Study[Run]:
        return (yield from train_trunk(self.dense, self.k))

    def measure_trained(self, device: str) -> float:
        """The test accuracy of the trained weights, evaluated as in engines."""
        run, on = self.dense, torch.device(device)
        network = build(run.start)
        self.ticket.into(network, trained=True)
        with reproducible(0, on), matmul_precision(run.training.precision, on):
            learner = ModuleLearner(network.to(on), run, prepare(run.data, self.data_dir), on)
            return learner.evaluate("test")[0].accuracy


def recipe_claim(
    path: Path, ticket: Ticket, provenance: Provenance, recipe: Recipe, data_dir: str | Path | None, trust: bool
) -> RecipeClaim:
    """The runs as the experiment made them. Raises `InputError` if the rest of the provenance does not agree."""
    for of, measures in (("measures", provenance.measures), ("dense", provenance.dense)):
        if measures is not None and any(measures[name] is None for name in FIGURES):
            raise InputError(f"its provenance is incomplete: {of}: figures are missing")
    check_claimed(recipe, provenance)
    if recipe.model.name in MODELS:  # other models are trusted code
        _check_network(recipe, provenance, ticket)
    else:
        require_trust(f'its network "{recipe.model.name}"', trust)
    alone = {"transfer": None, "stability": None, "baseline": None}
    experiment = RecipeExperiment(recipe.model_copy(update=alone), data_dir)
    dense, k = experiment.dense(provenance.replicate), _rewound(experiment, recipe, provenance, data_dir)
    if ticket.mask.shapes != dense.mask.shapes:
        raise InputError(f"its mask does not fit the network of its recipe, {recipe.model.name}")
    check_run((dense.after(dense.until(k), begin=k) if k else dense).masked(ticket.mask), provenance)
    if recipe.search.method in ("iterative", "one-shot"):  # other methods leave no exact number of weights
        check_level(experiment.workload.pruner, provenance.level, dense.mask, ticket.mask)
    for of, measures in (("measures", provenance.measures), ("dense", provenance.dense)):
        if measures is not None:
            _check_figures(of, measures, dense.last)
    return RecipeClaim(path, ticket, provenance, recipe, experiment.workload, dense, k, data_dir)


def _check_network(recipe: Recipe, provenance: Provenance, ticket: Ticket) -> None:
    """Check the network's description before it is built: a network larger than the mask might not fit into
    memory."""
    try:
        stated = Network.model_validate_json(json.dumps(provenance.run["start"]["network"]))
    except (KeyError, TypeError, ValidationError):
        raise InputError("its provenance is incomplete: run.start.network") from None
    check_network(describe(recipe.model.name, recipe.model.options, stated.inputs, stated.classes), ticket.mask)


def _rewound(
    experiment: RecipeExperiment, recipe: Recipe, provenance: Provenance, data_dir: str | Path | None
) -> int:
    """The iteration k; from the provenance if the recipe lets the experiment choose it."""
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
        raise inconsistent(f"run.begin is {k}, and the candidates of its recipe are {listed:.60}")
    return k


def _check_figures(of: str, measures: Measures, last: int) -> None:
    """Raises `InputError` for impossible figures; `last` is the length of the training in iterations."""
    bounds: dict[str, float] = {name: 1 for name in FIGURES if "accuracy" in name}
    bounds |= {"iterations": last, "stop_iteration": measures.iterations, "validation_loss_at_stop": float("inf")}
    for name, high in bounds.items():
        value = measures.iterations if name == "iterations" else measures[name]
        if value is None or not 0 <= value <= high:
            raise inconsistent(f"{of}.{name} is {value!r:.60}, and should be from 0 to {high}")
