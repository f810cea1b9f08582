"""All tickets have one kind of provenance, whoever trained them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.in_loop_training import Training
from tests.support.tickets import custom_network
from tombola import find_ticket
from tombola.experiments.custom_config import custom_config, described_search
from tombola.integrations.search_config import SearchConfig
from tombola.pruning.options import PruningOptions
from tombola.pruning.structures import Heads
from tombola.tickets.origin import own_training
from tombola.tickets.ticket import Ticket


def test_a_search_within_a_training_says_what_find_ticket_says_but_a_verdict() -> None:
    def train(network: Any) -> float:
        network[1].weight.data *= 2
        return 1.0

    theirs = find_ticket(custom_network, train, levels=1, rate=0.5).ticket.provenance
    ours = Training().run().search.ticket.provenance
    assert ours.keys() == theirs.keys() - {"verdict"}
    assert ours["recipe"].keys() == theirs["recipe"].keys()
    assert ours["run"].keys() - {"begin", "end"} == theirs["run"].keys() - {"begin", "end"}
    assert ours["measures"].keys() - {"loss"} <= theirs["measures"].keys()


def test_the_provenance_describes_the_search() -> None:
    search = Training(rewind="1ep", score="random", include=["1.weight"], leave_out=["5"]).run().search
    provenance = search.ticket_at(2).provenance
    config = custom_config(provenance["recipe"])
    assert config.resolved() == provenance["recipe"]
    assert (config.search.levels, config.search.rate, config.search.score) == (3, 0.5, "random")
    assert (config.search.include, config.search.leave_out) == (["1.weight"], ["5"])
    assert str(config.rewind.to) == "1ep"
    assert (config.replicates, config.name) == (1, "Sequential")
    assert (provenance["replicate"], provenance["level"]) == (0, 2)
    assert (provenance["run"]["begin"], provenance["run"]["end"]) == (4, 12)
    assert provenance["run"]["mask"] == search.ticket_at(2).mask.digest
    assert provenance["key"] == search.levels[2].run
    assert provenance["measures"] == search.levels[2].measures.model_dump()
    assert provenance["dense"] == search.levels[0].measures.model_dump()


def test_results_that_are_not_known_yet_are_left_out() -> None:
    search = Training().run(lambda training: training.seen == 5).search
    assert {"measures", "dense"}.isdisjoint(search.ticket.provenance)
    search = Training().run(lambda training: training.seen == 14).search
    assert "measures" not in search.ticket.provenance
    assert search.ticket.provenance["dense"] == search.ticket_at(0).provenance["measures"]


@pytest.mark.parametrize(
    ("provenance", "train"),
    [
        ({"recipe": {"functions": {"train": "mine:train"}}, "figures": {}}, "mine:train"),
        ({"recipe": {"functions": {"train": 3}}}, None),
        ({"recipe": {"name": "digits"}, "search": {}}, None),
        ({"recipe": []}, None),
        ({"figures": {}}, "a training function"),
        ({"search": {}}, "a training with a callback"),
        ({}, None),
        ([], None),
    ],
)
def test_what_trained_a_ticket_is_known(provenance: object, train: str | None) -> None:
    assert own_training(provenance) == train


def test_tickets_of_former_versions_were_trained_by_a_function() -> None:
    ticket = Ticket.load(Path(__file__).parent / "golden" / "custom_search.safetensors")
    assert own_training(ticket.provenance) == "a training function"


def test_options_of_any_number_type_are_described() -> None:
    options = {"levels": np.int64(2), "rate": np.float32(0.5)}
    recipe = SearchConfig(every="3it", seed=np.int64(3), **options).recipe("package:Net", "train")  # type: ignore[arg-type]
    assert json.loads(json.dumps(recipe.resolved()))["search"]["levels"] == 2
    assert (recipe.search.rate, recipe.seed, recipe.name) == (0.5, 3, "Net")


def test_other_heads_are_described_as_others() -> None:
    heads = Heads(2, qkv="qkv", output="out"), Heads(4, qkv="qkv", output="out"), Heads(2, qkv="in", output="out")
    for of in (
        lambda each: described_search(PruningOptions(structure=each), one_shot=False),
        lambda each: SearchConfig(levels=1, every="3it", structure=each).description,
    ):
        found = [of(each)["structure"] for each in heads]
        assert len({*found}) == 3
        assert found[0] == of(Heads(2, qkv="qkv", output="out"))["structure"]
        assert of("neurons")["structure"] == "neurons"
        json.dumps(found)
