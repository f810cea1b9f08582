"""Recipes that prune units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.experiments import simulate
from tests.support.outcomes import outcome_of
from tests.support.recipes import tiny
from tombola.experiments.mask_source import ExactMasks, StandInMask, StandInMasks
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.studies.rehearsal import MadeUp

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
