from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import outcome_of, tiny
from tests.studies.test_search import answer
from tombola.experiments.experiment import Experiment, expected_runs
from tombola.pruning.mask import Mask
from tombola.pruning.scores.growth import gradient
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.dynamic import annealed, moving, regrow
from tombola.studies.request import RunRequest
from tombola.zoo.models import build


def trained(ask: RunRequest) -> Outcome:
    """A made-up outcome, biases included."""
    outcome = outcome_of(ask.run)
    return replace(outcome, final=build(ask.run.start).state_dict() | outcome.final)


def sparse(method: str, **changes: Any) -> dict[str, Any]:
    section = {method: {"changes": 4} | changes}
    return {"search": {"levels": 1, "density": 0.2, "method": method, "scope": "erk"}, **section}


@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    density=st.floats(0, 1),
    share=st.floats(0, 1),
    seed=st.integers(0, 10**6),
    ties=st.booleans(),
)
def test_every_layer_keeps_its_number_of_weights(
    sizes: list[int], density: float, share: float, seed: int, ties: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def scores(size: int) -> torch.Tensor:
        drawn = torch.rand(size, generator=generator)
        return (drawn * 3).round() if ties else drawn

    mask = Mask({f"{i}": torch.rand(size, generator=generator) < density for i, size in enumerate(sizes)})
    drop, grow = ({f"{i}": scores(size) for i, size in enumerate(sizes)} for _ in range(2))
    counts = moving(mask, share)
    after = regrow(mask, drop, grow, counts)
    assert after.counts == mask.counts
    for name, count in counts.items():
        gone, come = mask[name] & ~after[name], after[name] & ~mask[name]
        assert int(gone.sum()) == int(come.sum()) == count  # none that was dropped was grown
        if count > 0:
            stayed, free = mask[name] & after[name], ~mask[name] & ~after[name]
            assert not stayed.any() or drop[name][gone].max() <= drop[name][stayed].min()
            assert not free.any() or grow[name][come].min() >= grow[name][free].max()


def test_a_layer_moves_no_more_weights_than_it_has_places_for() -> None:
    kept = torch.ones(10, dtype=torch.bool)
    one_free = kept.clone()
    one_free[3] = False
    mask = Mask({"dense": kept, "nearly": one_free, "half": torch.arange(10) < 5})
    assert moving(mask, 0.4) == {"dense": 0, "nearly": 1, "half": 2}
    with pytest.raises(ValueError, match="1 weights of dense cannot move: 10 of 10 are left"):
        regrow(mask, {}, {}, {"dense": 1})


def test_the_share_that_moves_falls_along_half_a_cosine() -> None:
    share = annealed(0.3, 100)
    assert [share(t) for t in (0, 50, 100)] == pytest.approx([0.3, 0.15, 0.0])


def test_gradients_are_those_of_pruned_weights_too(dense: Run) -> None:
    network = build(dense.start)
    mask = Mask({name: torch.arange(kept.numel()).view_as(kept) % 2 == 0 for name, kept in dense.mask.items()})
    mask.apply_(network)
    x, y = torch.rand(30, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 10
    weights = {name: network.get_parameter(name).detach() for name in mask}
    found = gradient(ScoreInputs(weights, mask, _network=lambda: build(dense.start), _batches=lambda: [(x, y)]))
    network = build(dense.start)
    torch.nn.functional.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
    for name in mask:
        slope = network.get_parameter(name).grad
        assert slope is not None
        torch.testing.assert_close(found[name], slope.abs())
        assert (found[name][~mask[name]] > 0).any()


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_training_is_sparse_all_along_and_masks_differ_where_they_should(method: str) -> None:
    recipe = tiny(**sparse(method), controls={"random": 1, "rewound": 1})
    experiment = Experiment(recipe)
    asked, _ = answer(experiment.study(0), outcome=trained)
    asks = [ask for question in asked for ask in question]
    assert len(asks) * recipe.replicates == expected_runs(recipe)
    segments = [ask.run for ask in asks if ask.branch == "segment"]
    ticket = [ask.run for ask in asks if ask.branch == "ticket"][-1]
    assert [run.last for run in segments] == {"set": [12, 24, 36, 48], "rigl": [9, 18, 27, 36]}[method]
    assert {tuple(run.mask.counts.items()) for run in [*segments, ticket]} == {tuple(ticket.mask.counts.items())}
    assert round(0.2 * ticket.mask.size) == ticket.mask.count
    shares = {"set": [0.3] * 4, "rigl": [annealed(0.3, 45)(k) for k in (9, 18, 27, 36)]}[method]
    for before, after, share in zip(segments, [*segments[1:], ticket], shares, strict=True):
        moved = (before.mask - after.mask).count
        assert moved == sum(moving(before.mask, share).values()) > 0
        weights = outcome_of(before).final  # those of smallest magnitude went
        for name, gone in (before.mask - after.mask).items():
            stayed = before.mask[name] & after.mask[name]
            assert not gone.any() or weights[name][gone].abs().max() <= weights[name][stayed].abs().min()
    assert answer(experiment.study(0), outcome=trained)[0] == asked  # seeds alone decide
    other = answer(experiment.study(1), outcome=trained)[0][1][0].run.mask
    assert other != segments[0].mask
    assert other.counts == segments[0].mask.counts


def test_growth_at_random_differs_from_change_to_change() -> None:
    recipe = tiny(**sparse("set", fraction=0.5))
    masks = [a.run.mask for q in answer(Experiment(recipe).study(0))[0] for a in q if a.branch == "segment"]
    grown = [(after - before).digest for before, after in pairwise(masks)]
    assert len(set(grown)) == len(grown)
