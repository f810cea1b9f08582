"""Recipes that prune units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.experiments import simulate
from tests.support.outcomes import outcome_of
from tests.support.recipes import tiny
from tests.support.studies import requests_of
from tombola.experiments.mask_source import ExactMasks, StandInMask, StandInMasks
from tombola.experiments.methods import METHODS
from tombola.experiments.methods.early_bird import EarlyBirdSection
from tombola.experiments.methods.search_method import MethodContext
from tombola.experiments.recipe import load_recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.pruning.options import PruningOptions
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.pruning.structures import UnitStructure
from tombola.studies.rehearsal import MadeUp
from tombola.zoo.models import build, describe
from tombola.zoo.models.description import Start

CONTROLS = {"random": 1, "shuffled": 1, "random_global": 1, "large_init": 1}


def structured(**options: Any) -> dict[str, Any]:
    return {"search": {"levels": 2, "rate": 0.4, "structure": "neurons"} | options, "controls": CONTROLS}


@pytest.mark.parametrize("options", [{}, {"scope": "global", "cost": "macs"}, {"round_to": 4, "group_score": "norm"}])
def test_a_search_by_neurons_finishes_and_its_masks_are_of_whole_units(
    options: dict[str, Any], tmp_path: Path
) -> None:
    recipe = tiny(**structured(**options), replicates=1)
    results, recorder = simulate(recipe, tmp_path)
    assert results.finished
    for _, request in recorder.answers:
        first, second, output = request.run.mask.values()
        for layer, reader in ((first, second), (second, output)):
            assert (layer.any(1) == reader.any(0)).all()
    assert len({request.run.mask for _, request in recorder.answers}) > 5


@pytest.mark.parametrize("options", [{}, {"scope": "global"}, {"cost": "weights"}])
def test_stand_ins_keep_as_many_units(options: dict[str, Any]) -> None:
    experiment = RecipeExperiment(tiny(**structured(**options)))
    dense, workload = experiment.dense(0), experiment.workload
    exact = ExactMasks().prune(workload, dense, outcome_of(dense), 0)
    stand_in = StandInMasks().prune(workload, dense, MadeUp.of(dense, dense.key), 0)
    assert isinstance(stand_in, StandInMask)
    structure = workload.pruner.structure
    if not options:
        assert stand_in.counts == exact.counts
    drawn = StandInMasks().random_mask(stand_in, dense.mask, structure.counts_like(stand_in), 5, structure)
    assert isinstance(drawn, StandInMask)
    assert drawn.counts == stand_in.counts


def test_an_early_bird_search_compares_units(tmp_path: Path) -> None:
    search = {"levels": 1, "density": 0.5, "method": "early-bird", "structure": "neurons"}
    results, recorder = simulate(
        tiny(search=search, early_bird={"draws": 4, "window": 2}, controls={"random": 1}, replicates=1), tmp_path
    )
    assert results.finished
    ticket = next(request.run.mask for _, request in recorder.answers if request.branch == "ticket" and request.level)
    assert ticket.counts == {"fc1.weight": 640, "fc2.weight": 50, "output.weight": 50}


def unused(*_: Any) -> Any:
    raise AssertionError


@pytest.mark.parametrize(
    ("layer", "gone", "tolerance", "draws"),
    [
        (0, [[0], [1]], 0.08, 2),  # 2 of 30 units differ, but 148 of the 1480 weights of two layers
        (1, [[0, 1, 2], [3, 4, 5]], 0.15, 3),  # 6 of 30 units differ, but 120 of the 1480 weights
    ],
)
def test_masks_of_an_early_bird_search_agree_if_their_units_do(
    layer: int, gone: list[list[int]], tolerance: float, draws: int
) -> None:
    dense = RecipeExperiment(tiny()).dense(0)
    chosen = PruningOptions(rate=0.4, structure="neurons")
    pruner = chosen.pruner(chosen.prunable(build(dense.start), torch.zeros(2, 8, 8)))
    structure = pruner.structure
    assert isinstance(structure, UnitStructure)
    masks = []
    for units in gone:
        kept = torch.ones(structure.units.count, dtype=torch.bool)
        kept[structure.units.sets[layer].ids[units]] = False
        masks.append(structure.units.keep(dense.mask, kept))
    first, second = masks
    drawn = iter([first, second, second])
    context = MethodContext(
        options=EarlyBirdSection(draws=3, window=2, tolerance=tolerance),
        **{"seed": 0, "replicate": 0, "levels": 1, "pruner": pruner},
        prune=lambda *_: next(drawn),
        **dict.fromkeys(("retrain", "score_inputs", "training_batches"), unused),
    )
    requests = requests_of(METHODS["early-bird"].search(context, dense))
    assert len([request for request in requests if request.branch == "segment"]) == draws
    assert requests[-1].run.mask == second


def test_the_table_of_layers_has_the_units_of_each_mask(tmp_path: Path) -> None:
    results, recorder = simulate(tiny(**structured(cost="macs"), replicates=1), tmp_path)
    masks = {(r.branch, r.level): r.run.mask for _, r in recorder.answers if r.draw == 0}
    assert len(results.layers) == 3 * len(masks)
    for row in results.layers:
        kept, first = masks[row["branch"], row["level"]][row["layer"]], row["layer"] == "fc1.weight"
        last = row["layer"] == "output.weight"
        assert row["outputs"] == (None if last else int(kept.any(1).sum()))
        assert row["inputs"] == (None if first else int(kept.any(0).sum()))
        assert row["multiply_adds"] == row["weights"]  # of linear layers
    assert {row["outputs"] for row in results.layers if row["layer"] == "fc1.weight"} >= {20}


@pytest.mark.parametrize(
    ("name", "structure", "left"),
    [
        ("resnet20-cifar10-channels", "channels", 0.8**8),
        ("resnet20-cifar10-channels-small", "channels", 0.705**3),
        ("vgg16-cifar10-channels-small", "channels", 0.705**3),
        ("vit-cifar10-heads", "heads", 7 / 36),
        ("vit-cifar10-heads-small", "heads", 7 / 16),
    ],
)
def test_recipes_by_units_can_be_pruned_to_their_last_level(name: str, structure: str, left: float) -> None:
    recipe = load_recipe(name)
    assert recipe.search.structure == structure
    assert {"reinit", "random", "shuffled"} <= recipe.controls.keys()
    inputs = (3, recipe.data.size or 32, recipe.data.size or 32)
    network = describe(recipe.model.name, recipe.model.options, inputs, 10)
    prunable = recipe.search.options.prunable(build(Start(network=network, seed=0)), torch.zeros(2, *inputs))
    pruner = recipe.search.pruner(prunable)
    pruner.check_levels(prunable.dense, recipe.search.levels)
    mask, weights = prunable.dense, dict(prunable.network.named_parameters())
    for _ in range(recipe.search.levels):
        mask = pruner(ScoreInputs(weights, mask))
    before, after = (sum(pruner.units_left(each).values()) for each in (prunable.dense, mask))
    assert after / before == pytest.approx(left, rel=0.1)
    assert after / before <= left + 1 / before
