from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import random_mask, tiny
from tests.studies.test_search import answer, prune_by_magnitude
from tombola.experiments.experiment import Experiment, expected_runs
from tombola.experiments.recipe import Recipe
from tombola.runs.run import Run
from tombola.studies.search import iterative_search
from tombola.studies.transfer import carried, transfer
from tombola.utils.errors import InputError
from tombola.zoo.datasets.digits import load_digits
from tombola.zoo.models import build
from tombola.zoo.models.description import Network, Start


def other_data(folder: Path, classes: int) -> Path:
    """Digits lying on their side, only those below `classes`."""
    digits = load_digits()
    train, test = digits.y_train < classes, digits.y_test < classes
    path = folder / f"side{classes}.npz"
    np.savez(
        path,
        x_train=digits.x_train[train].transpose(0, 2, 1),
        y_train=digits.y_train[train],
        x_test=digits.x_test[test].transpose(0, 2, 1),
        y_test=digits.y_test[test],
    )
    return path


def recipe_of(path: Path, **changes: object) -> Recipe:
    return tiny(transfer={"data": {"name": str(path), "validation": 100}} | changes)


def test_each_ticket_and_random_masks_of_its_counts_are_trained_elsewhere(dense: Run) -> None:
    tickets = answer(iterative_search(dense, 3, prune_by_magnitude))[1]
    target = dense.model_copy(update={"seed": 5})
    (asks,), _ = answer(transfer(tickets, target, [1, 3], 2, lambda _level, draw: 10 + draw))
    assert [(ask.branch, ask.level, ask.draw) for ask in asks] == [
        ("transfer", 0, 0),
        *((name, level, draw) for level in (1, 3) for name, draw in TRANSFERRED),
    ]
    for ask in asks:
        assert ask.run == target.masked(ask.run.mask)
        assert ask.run.mask.counts == tickets[ask.level].run.mask.counts
        assert (ask.run.mask == tickets[ask.level].run.mask) == (ask.branch == "transfer")
    assert len({ask.run.key for ask in asks}) == len(asks)


TRANSFERRED = [("transfer", 0), ("transfer_random", 0), ("transfer_random", 1)]


def test_of_an_output_layer_of_another_shape_everything_is_left(dense: Run) -> None:
    mask = random_mask(dense, 0.3)
    full = Experiment(tiny()).dense(0).mask
    there = type(full)({**full, "output.weight": torch.ones(5, 10, dtype=torch.bool)})
    found = carried(mask, there)
    assert found.counts == mask.counts | {"output.weight": 50}
    assert carried(mask, full) == mask


@pytest.mark.parametrize("classes", [10, 5])
def test_tickets_keep_their_initial_weights_whatever_the_classes(tmp_path: Path, classes: int) -> None:
    recipe = recipe_of(other_data(tmp_path, classes))
    asked, _ = answer(Experiment(recipe).study(1))
    asks = [ask for question in asked for ask in question]
    assert len(asks) * recipe.replicates == expected_runs(recipe)
    here, there = (next(a.run for a in asks if (a.branch, a.level) == (b, 2)) for b in ("ticket", "transfer"))
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


def test_nothing_is_searched_on_the_other_data_so_it_may_be_too_short_for_that(tmp_path: Path) -> None:
    """Three epochs are fewer iterations there than masks are drawn here."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 9, (180, 8, 8)).astype(np.uint8), np.arange(180) % 10
    np.savez(tmp_path / "few.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    search = {"levels": 1, "density": 0.2, "method": "early-bird"}
    transfer = {"data": {"name": str(tmp_path / "few.npz"), "validation": 100}}
    recipe = tiny(search=search, transfer=transfer, early_bird={"draws": 20}, training__length="3ep")
    target = Experiment(recipe).kinds[-1]
    assert target.last < 20 < Experiment(recipe).dense(0).last


def test_what_cannot_be_transferred_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wide, labels = rng.integers(0, 9, (300, 9, 9)).astype(np.uint8), np.arange(300) % 10
    np.savez(tmp_path / "wide.npz", x_train=wide, y_train=labels, x_test=wide, y_test=labels)
    with pytest.raises(InputError, match=r"transfer\.data: examples should have the shape \(8, 8\)"):
        Experiment(recipe_of(tmp_path / "wide.npz"))
    with pytest.raises(InputError, match=r"transfer: data\.validation: should be from 1 to"):
        Experiment(tiny(transfer={"data": {"name": str(other_data(tmp_path, 5)), "validation": 9000}}))
    for rewind in ({"to": "5it"}, {"method": "learning-rate"}):
        with pytest.raises(InputError, match=r"transfer: is from initial weights; goes with rewind\.to = \"0it\""):
            tiny(transfer={"data": {"name": str(tmp_path / "wide.npz"), "validation": 100}}, rewind=rewind)
    with pytest.raises(InputError, match=r"transfer\.levels: there are 3 levels, and none is higher"):
        recipe_of(tmp_path / "wide.npz", levels=[4])


def test_a_network_like_another_takes_what_fits_and_draws_the_rest() -> None:
    ten = Network(name="mlp", options={"widths": [6]}, inputs=(4,), classes=10)
    five = ten.model_copy(update={"classes": 5})
    plain, like = build(Start(network=ten, seed=1)), build(Start(network=five, seed=1, like=ten))
    assert torch.equal(plain.state_dict()["fc1.weight"], like.state_dict()["fc1.weight"])
    assert like.state_dict()["output.weight"].shape == (5, 6)
