"""Random graphs, pruned by coupled units and compacted: the same outputs, and smaller by what was pruned."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.architectures.architecture import Made
from tests.support.architectures.random_graphs import random_graph, random_graphs
from tests.support.coupled_units import assert_exact, in_double, kinds_of


@pytest.mark.parametrize("seed", range(60))
def test_a_random_graph(seed: int) -> None:
    for structure in sorted(kinds_of(*random_graph(seed))):
        if seed % 2:
            assert_exact(*in_double(random_graph(seed)), structure, "random", seed, all_removable=False)
        else:
            assert_exact(*random_graph(seed), structure, "magnitude", 0, all_removable=False)


def test_most_random_graphs_have_units_to_prune() -> None:
    assert sum(bool(kinds_of(*random_graph(seed))) for seed in range(60)) >= 55


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(random_graphs(), st.integers(0, 2**16))
def test_drawn_graphs(drawn: Made, seed: int) -> None:
    network, example = in_double(drawn)
    kinds = sorted(kinds_of(network, example))
    if kinds:
        assert_exact(network, example, kinds[seed % len(kinds)], "random", seed, all_removable=False)
