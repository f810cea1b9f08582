from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.experiments import rotated_digits
from tests.support.outcomes import random_mask
from tests.support.recipes import tiny
from tests.support.studies import drive, prune_by_magnitude, requests_of
from tombola.experiments.experiment import count_runs
from tombola.experiments.recipe import Recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.runs.run import Run
from tombola.studies.repeated_runs import verification_runs
from tombola.studies.search import iterative_search
from tombola.studies.transfer import fit_mask, transfer
from tombola.utils.errors import InputError
from tombola.zoo.models import build
from tombola.zoo.models.description import Start


def recipe_of(path: Path, levels: list[int] | None = None, **changes: Any) -> Recipe:
    return tiny(transfer={"data": {"name": str(path), "validation": 100}, "levels": levels}, **changes)


def random_images(folder: Path, count: int, size: int) -> Path:
    path, labels = folder / "images.npz", np.arange(count) % 10
    images = np.random.default_rng(0).integers(0, 9, (count, size, size)).astype(np.uint8)
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    return path


def test_each_ticket_and_random_masks_of_its_counts_are_trained_on_the_target(dense: Run) -> None:
    tickets = drive(iterative_search(dense, 3, prune_by_magnitude))[1]
    target = dense.model_copy(update={"seed": 5})
    (requests,), _ = drive(transfer(tickets, target, [1, 3], 2, lambda _level, draw: 10 + draw))
    expected = [("transfer", 0), ("transfer_random", 0), ("transfer_random", 1)]
    assert [(request.branch, request.level, request.draw) for request in requests] == [
        ("transfer", 0, 0),
        *((name, level, draw) for level in (1, 3) for name, draw in expected),
    ]
    for request in requests:
        assert request.run == target.masked(request.run.mask)
        assert request.run.mask.counts == tickets[request.level].run.mask.counts
        assert (request.run.mask == tickets[request.level].run.mask) == (request.branch == "transfer")
    assert len({request.run.key for request in requests}) == len(requests)


def test_an_output_layer_of_another_shape_keeps_all_weights(dense: Run) -> None:
    mask = random_mask(dense, 0.3)
    full = RecipeExperiment(tiny()).dense(0).mask
    target = type(full)({**full, "output.weight": torch.ones(5, 10, dtype=torch.bool)})
    found = fit_mask(mask, target)
    assert found.counts == mask.counts | {"output.weight": 50}
    assert fit_mask(mask, full) == mask


@pytest.mark.parametrize("classes", [10, 5])
def test_tickets_keep_their_initial_weights_with_other_classes_too(tmp_path: Path, classes: int) -> None:
    recipe = recipe_of(rotated_digits(tmp_path, classes))
    requests = requests_of(RecipeExperiment(recipe).study(1))
    assert len(requests) * recipe.replicates == count_runs(recipe)
    here, there = (next(a.run for a in requests if (a.branch, a.level) == (b, 2)) for b in ("ticket", "transfer"))
    assert here.data.digest != there.data.digest
    assert there.start.network.classes == classes
    same = ("fc1", "fc2", "output") if classes == 10 else ("fc1", "fc2")
    weights = [build(run.start).state_dict() for run in (here, there)]
    for layer in ("fc1", "fc2", "output"):
        name = f"{layer}.weight"
        assert (layer in same) == (weights[0][name].shape == weights[1][name].shape)
        if layer in same:
            assert torch.equal(weights[0][name], weights[1][name])
            assert torch.equal(here.mask[name], there.mask[name])
    if classes != 10:
        assert there.mask["output.weight"].all()
    assert Start(network=here.start.network, seed=1).model_dump(exclude_defaults=True).keys() == {"network", "seed"}


def test_the_other_data_may_be_too_small_for_the_search(tmp_path: Path) -> None:
    """Three epochs of it are fewer iterations than the masks that the search draws."""
    search = {"levels": 1, "density": 0.2, "method": "early-bird"}
    few = random_images(tmp_path, 180, 8)
    recipe = recipe_of(few, search=search, early_bird={"draws": 20}, training__length="3ep")
    target = RecipeExperiment(recipe).sample_runs[-1]
    assert target.last < 20 < RecipeExperiment(recipe).dense(0).last


def test_invalid_transfers_are_refused(tmp_path: Path) -> None:
    wide = random_images(tmp_path, 300, 9)
    with pytest.raises(InputError, match=r"transfer\.data: .*\(8, 8\)"):
        RecipeExperiment(recipe_of(wide))
    with pytest.raises(InputError, match=r"transfer: data\.validation: "):
        RecipeExperiment(tiny(transfer={"data": {"name": str(rotated_digits(tmp_path, 5)), "validation": 9000}}))
    for rewind in ({"to": "5it"}, {"method": "learning-rate"}):
        with pytest.raises(InputError, match=r"transfer: .*rewind\.to"):
            recipe_of(wide, rewind=rewind)
    with pytest.raises(InputError, match=r"transfer\.levels: .*3"):
        recipe_of(wide, levels=[4])


def test_all_runs_have_the_new_batch_order_and_nothing_else_differs(dense: Run) -> None:
    mask = random_mask(dense, 0.3)
    requests = next(verification_runs(dense, mask, 4, order=7, reinit=[11, 12]))
    assert isinstance(requests, list)
    assert [(request.branch, request.level, request.draw) for request in requests] == [
        ("ticket", 0, 0),
        ("ticket", 4, 0),
        ("reinit", 4, 0),
        ("reinit", 4, 1),
    ]
    reordered, ticket, *controls = (request.run for request in requests)
    assert {request.run.seed for request in requests} == {7}
    assert reordered == dense.model_copy(update={"seed": 7})
    assert ticket == reordered.masked(mask)
    assert [run.start.seed for run in controls] == [11, 12]
    assert all(run == ticket.reinitialised(run.start.seed) for run in controls)
