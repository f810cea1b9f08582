from __future__ import annotations

import dataclasses

import torch

from tests.support.outcomes import outcome_of, random_mask
from tombola.experiments.layer_stats import layer_stats
from tombola.runs.initial_state import initial_state
from tombola.runs.run import Run
from tombola.runs.without_parametrization import without_parametrization
from tombola.zoo.models import build
from tombola.zoo.models.reparametrization import original_name


def test_statistics_of_a_parametrized_run_are_those_of_its_weights(dense: Run) -> None:
    plain = dense.masked(random_mask(dense, 0.3))
    run = plain.parametrized("sign-in")
    start = initial_state(run.start)
    final = start | {original_name("fc2.weight"): -start[original_name("fc2.weight")]}
    outcome = dataclasses.replace(outcome_of(plain), final=final)
    stats = {layer.layer: layer for layer in layer_stats(*without_parametrization(run, start, outcome))}
    before = build(plain.start).state_dict()
    assert list(stats) == list(plain.mask)
    for name, layer in stats.items():
        assert layer.weights == plain.mask.counts[name]
        norm = float(before[name][plain.mask[name]].norm())
        torch.testing.assert_close(layer.start_norm, norm, rtol=1e-5, atol=0)
        assert layer.sign_changes == (layer.weights if name == "fc2.weight" else 0)


def test_other_runs_stay_as_they_are(dense: Run) -> None:
    start, outcome = initial_state(dense.start), outcome_of(dense)
    assert without_parametrization(dense, start, outcome)[0] is dense
