from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.support.outcomes import outcome_of, random_mask
from tombola.experiments.layer_stats import BINS, LayerStats, layer_stats
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.zoo.models import build


def stats_of(run: Run, outcome: Outcome) -> list[LayerStats]:
    return layer_stats(run, build(run.start).state_dict(), outcome)


def test_every_kept_weight_is_counted_once(dense: Run) -> None:
    run = dense.masked(random_mask(dense, 0.3))
    layers = stats_of(run, outcome_of(run))
    assert [layer.layer for layer in layers] == list(run.mask)
    for layer in layers:
        kept = run.mask[layer.layer]
        assert (layer.weights, layer.weights_total) == (int(kept.sum()), kept.numel())
        assert len(layer.start_histogram) == BINS
        assert sum(layer.start_histogram) == layer.weights
    first, *others = layers
    assert first.input_connections == run.mask["fc1.weight"].sum(0).tolist()
    assert sum(first.input_connections or []) == first.weights
    assert all(layer.input_connections is None for layer in others)


def test_distance_and_sign_changes_are_those_of_kept_weights(dense: Run) -> None:
    run = dense.masked(random_mask(dense, 0.3))
    start = build(run.start).state_dict()
    mask = run.mask["fc2.weight"]
    final = {name: start[name] * kept for name, kept in run.mask.items()}
    untrained = {layer.layer: layer for layer in stats_of(run, dataclasses.replace(outcome_of(run), final=final))}
    assert (untrained["fc2.weight"].sign_changes, untrained["fc2.weight"].distance) == (0, 0.0)
    final["fc2.weight"] = -final["fc2.weight"]
    negated = {layer.layer: layer for layer in stats_of(run, dataclasses.replace(outcome_of(run), final=final))}
    assert negated["fc2.weight"].sign_changes == int(mask.sum())
    assert negated["fc2.weight"].distance is not None
    assert abs(negated["fc2.weight"].distance - 2 * negated["fc2.weight"].start_norm) < 1e-4
    assert negated["fc1.weight"].sign_changes == 0


def test_for_images_with_channels_connections_are_counted_by_pixel(dense: Run) -> None:
    network = dense.start.network.model_copy(update={"inputs": (4, 4, 4)})  # 64 numbers, as 4 channels of 4x4
    run = dense.model_copy(update={"start": dense.start.model_copy(update={"network": network})})
    connections = stats_of(run, outcome_of(run))[0].input_connections
    assert connections == [4 * 20] * 16


def test_a_diverged_training_has_no_distance(dense: Run) -> None:
    outcome = outcome_of(dense, diverged=True)
    outcome = dataclasses.replace(outcome, final={n: torch.full_like(w, torch.nan) for n, w in outcome.final.items()})
    assert all(layer.distance is None and layer.sign_changes is None for layer in stats_of(dense, outcome))


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_the_histogram_is_that_of_the_kept_weights_also_where_some_start_at_zero(dense: Run, density: float) -> None:
    run = dense.masked(random_mask(dense, density))
    start = {name: tensor.where(tensor > 0, 0) for name, tensor in build(run.start).state_dict().items()}
    for layer in layer_stats(run, start, outcome_of(run)):
        weights = start[layer.layer]
        width = 8 * float(weights[weights != 0].square().mean().sqrt()) / BINS
        bins = (weights[run.mask[layer.layer]] / width + BINS / 2).floor().clamp(0, BINS - 1).long()
        assert layer.start_histogram == torch.bincount(bins, minlength=BINS).tolist()
