from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import outcome_of, tiny
from tests.studies.test_search import answer
from tombola.experiments.experiment import Experiment, expected_runs
from tombola.pruning.mask import Mask
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.gradual import on_the_way
from tombola.studies.request import RunRequest
from tombola.studies.segments import evenly, in_segments
from tombola.utils.errors import InputError
from tombola.zoo.models import build
from tombola.zoo.models.description import Trained

GRADUAL = {"search": {"levels": 1, "density": 0.2, "method": "gradual"}, "gradual": {"changes": 4, "end": 0.8}}


def test_segments_are_parts_of_one_training_each_with_its_own_mask(dense: Run) -> None:
    masks = {20: Mask({n: kept & False for n, kept in dense.mask.items()}), 50: dense.mask}
    asked, ticket = answer(in_segments(dense, [20, 50], lambda _outcome, _run, k: masks[k]))
    asks = [ask for question in asked for ask in question]
    assert [(ask.branch, ask.level, ask.run.begin, ask.run.last) for ask in asks] == [
        ("segment", 1, 0, 20),
        ("segment", 1, 20, 50),
        ("ticket", 1, 50, 60),
    ]
    assert [ask.run.mask for ask in asks] == [dense.mask, masks[20], masks[50]]
    for before, ask in pairwise(asks):
        assert ask.run.start.trained == Trained(run=before.run.key, optimizer=True)
        assert (ask.run.seed, ask.run.data, ask.run.training) == (dense.seed, dense.data, dense.training)
    assert ticket == asks[-1]


def test_without_changes_it_is_the_training_itself(dense: Run) -> None:
    assert answer(in_segments(dense, [], lambda _outcome, run, _k: run.mask)) == (
        [[RunRequest("ticket", 1, dense)]],
        RunRequest("ticket", 1, dense),
    )


def test_where_a_segment_diverges_the_ticket_goes_on_from_there(dense: Run) -> None:
    asked, ticket = answer(
        in_segments(dense, [20, 50], lambda _outcome, run, _k: run.mask),
        outcome=lambda ask: outcome_of(ask.run, diverged=True),
    )
    assert [question[0].branch for question in asked] == ["segment", "ticket"]
    assert (ticket.run.begin, ticket.run.last) == (20, 60)


@given(begin=st.integers(0, 50), more=st.integers(1, 300), parts=st.integers(1, 300))
def test_changes_are_evenly_apart_and_in_order(begin: int, more: int, parts: int) -> None:
    parts = min(parts, more)
    at = evenly(begin, begin + more, parts)
    assert len(at) == parts
    assert at == sorted(set(at))
    assert at[0] > begin
    assert at[-1] == begin + more
    gaps = [b - a for a, b in pairwise([begin, *at])]
    assert max(gaps) - min(gaps) <= 2  # each end is rounded


@settings(deadline=None)
@given(size=st.integers(1, 10_000), share=st.floats(0, 1), changes=st.integers(1, 60))
def test_counts_fall_by_the_cubic_schedule_to_exactly_the_final_ones(size: int, share: float, changes: int) -> None:
    final = {("fc",): round(share * size)}
    ways = [on_the_way({("fc",): size}, final, i / changes)[("fc",)] for i in range(changes + 1)]
    assert (ways[0], ways[-1]) == (size, final[("fc",)])
    assert ways == sorted(ways, reverse=True)
    for i, left in enumerate(ways):  # Zhu & Gupta 2017, equation 1, from no sparsity
        sparsity = (1 - final[("fc",)] / size) * (1 - (1 - i / changes) ** 3)
        assert abs(left - size * (1 - sparsity)) <= 0.5 + 1e-6


def test_gradual_pruning_ends_with_the_counts_of_the_search_in_one_shot() -> None:
    recipe = tiny(**GRADUAL, controls={"rewound": 1, "random": 1, "reinit": 1})
    asked, _ = answer(Experiment(recipe).study(0))
    asks = [ask for question in asked for ask in question]
    assert len(asks) * recipe.replicates == expected_runs(recipe)
    segments = [ask.run for ask in asks if ask.branch == "segment"]
    assert [run.last for run in segments] == [12, 24, 36, 48]
    assert segments[0].mask.density == 1
    tickets = [ask.run for ask in asks if ask.branch == "ticket"]
    assert [run.begin for run in tickets] == [0, 48]
    for denser, sparser in pairwise([*segments, tickets[1]]):
        assert sparser.mask <= denser.mask
        assert sparser.mask != denser.mask
    plain, _ = answer(Experiment(tiny(search={"levels": 1, "density": 0.2, "one_shot": True})).study(0))
    assert tickets[1].mask.counts == plain[1][0].run.mask.counts


def test_gradual_pruning_by_synflow_leaves_no_layer_empty() -> None:
    """It scores in rounds, as pruning once does: one scoring would empty the layers of most weights."""
    search = {"levels": 1, "density": 0.002, "method": "gradual", "score": "synflow", "scope": "global"}
    recipe = tiny(search=search, gradual={"changes": 1}, model={"name": "mlp", "widths": [300, 300, 100]})
    asked, _ = answer(Experiment(recipe).study(0), outcome=untrained)
    mask = [ask.run.mask for question in asked for ask in question if ask.branch == "ticket"][-1]
    assert mask.count == mask.size - round(0.998 * mask.size)
    assert not mask.empty_layers


def untrained(ask: RunRequest) -> Outcome:
    """A made-up outcome with the initial weights."""
    outcome = outcome_of(ask.run)
    return replace(outcome, final=build(ask.run.start.model_copy(update={"trained": None})).state_dict())


def test_controls_of_masks_that_changed_start_from_the_beginning() -> None:
    experiment = Experiment(tiny(**GRADUAL, controls={"rewound": 1, "random": 1, "reinit": 1}))
    asked, _ = answer(experiment.study(0))
    asks = {ask.branch: ask.run for question in asked for ask in question}  # the last of each
    ticket, dense = asks["ticket"], experiment.dense(0)
    assert asks["rewound"] == dense.masked(ticket.mask)
    assert asks["reinit"] == dense.masked(ticket.mask).reinitialised(asks["reinit"].start.seed)
    assert asks["random"] == dense.masked(asks["random"].mask)
    assert asks["random"].mask.counts == ticket.mask.counts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gradual": {"changes": 2}}, 'gradual: goes with search.method = "gradual", not "iterative"'),
        ({"search__method": "gradual"}, 'search.levels: should be 1 with search.method = "gradual", not 3'),
        (GRADUAL | {"rewind": {"to": "5it"}}, "rewind.to: should be 0it with search.method"),
        (GRADUAL | {"rewind": {"method": "fine-tuning"}}, "rewind.method: should be weights with search.method"),
        (GRADUAL | {"gradual": {"begin": 0.9}}, "gradual: begin should be before end, 0.75, not 0.9"),
        (GRADUAL | {"gradual": {"changes": 46}}, "gradual.changes: from 0 to iteration 45 there is room for 45, not"),
        (GRADUAL | {"gradual": {"end": 0.999}}, "gradual.end: 0.999 of 60 iterations is their end"),
        (
            {"search": {"levels": 1, "density": 0.2, "method": "set"}, "set": {"changes": 60}},
            "set.changes: from 0 to iteration 60 there is room for 59, not for 60",
        ),
        (
            {"search": {"levels": 1, "density": 0.2, "method": "set", "rounds": 2}},
            'search.rounds: has no meaning with search.method = "set"',
        ),
        (
            {"search": {"levels": 1, "density": 0.2, "method": "edge-popup", "rounds": 2}},
            'search.rounds: has no meaning with search.method = "edge-popup"',
        ),
        ({"controls": {"rewound": 1}}, "controls.rewound: these tickets are rewound themselves"),
        ({"search__method": "rigl", "search__one_shot": True}, 'one_shot has no meaning with method = "rigl"'),
        (
            {"search": {"levels": 1, "density": 0.2, "method": "rigl", "score": "random"}},
            'search.score: has no meaning with search.method = "rigl"',
        ),
        (
            {"search": {"levels": 1, "density": 0.2, "method": "edge-popup", "scope": "global"}},
            'search.scope: search.method = "edge-popup" needs a number for each layer',
        ),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Experiment(tiny(**changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_shot_by_either_name_asks_for_the_same_runs() -> None:
    ways = [{"method": "one-shot"}, {"one_shot": True}]
    asked = [answer(Experiment(tiny(search={"levels": 2, "rate": 0.4} | way)).study(0))[0] for way in ways]
    assert asked[0] == asked[1]
