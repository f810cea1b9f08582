from __future__ import annotations

import pytest

from tests.support.outcomes import outcome_of
from tests.support.recipes import tiny
from tombola.experiments.mask_source import ExactMasks, StandInMask, StandInMasks
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.runs.run import Run
from tombola.studies.rehearsal import MadeUp


@pytest.mark.parametrize("scope", ["layer", "global", "erk"])
def test_stand_ins_keep_as_many_weights(scope: str) -> None:
    experiment = RecipeExperiment(tiny(search={"levels": 3, "rate": 0.37, "scope": scope}))
    dense, workload = experiment.dense(0), experiment.workload
    exact, stand_in = dense, dense
    for level in range(3):
        exact = exact.masked(ExactMasks().prune(workload, exact, outcome_of(exact), level))
        mask = StandInMasks().prune(workload, stand_in, MadeUp.of(stand_in, stand_in.key), level)
        assert isinstance(mask, StandInMask)
        stand_in = stand_in.masked(mask)
        assert stand_in.mask.count == exact.mask.count
        if scope != "global":
            assert stand_in.mask.counts == exact.mask.counts
    assert not stand_in.mask.empty_layers


def test_after_a_known_outcome_masks_are_exact() -> None:
    experiment = RecipeExperiment(tiny())
    dense, workload = experiment.dense(0), experiment.workload
    outcome = outcome_of(dense)
    assert StandInMasks().prune(workload, dense, outcome, 1) == ExactMasks().prune(workload, dense, outcome, 1)


def test_random_masks_are_exact_where_the_ticket_is() -> None:
    experiment = RecipeExperiment(tiny())
    dense = experiment.dense(0).mask
    counts = {(layer,): 10 for layer in dense.layers}
    exact = ExactMasks().random_mask(dense, dense, counts, 5)
    assert StandInMasks().random_mask(dense, dense, counts, 5) == exact
    stand_in = StandInMasks().random_mask(StandInMask(dense), dense, counts, 5)
    assert stand_in != exact
    assert stand_in.counts == exact.counts


def test_masks_of_different_origin_differ(dense: Run) -> None:
    workload = RecipeExperiment(tiny()).workload
    outcomes = [MadeUp.of(run, run.key) for run in (dense, dense.reinitialised(1))]
    masks = [StandInMasks().prune(workload, dense, outcome, 1) for outcome in outcomes]
    assert masks[0] != masks[1]
    assert masks[0] == StandInMasks().prune(workload, dense, outcomes[0], 1)
