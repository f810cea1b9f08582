from __future__ import annotations

import math
from typing import Any

import pytest

from tests.support.errors import raises_input_error
from tests.support.prunable import prunable_network
from tombola.pruning.options import RATE, PruningOptions
from tombola.pruning.scopes import ErdosRenyi, Globally, Layerwise
from tombola.pruning.structures import Heads

SHAPES = {"fc1.weight": (30, 78), "fc2.weight": (10, 30), "output.weight": (4, 10)}


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"levels": 0}, ["levels:", "at least 1", "not 0"]),
        ({"levels": True}, ["levels:", "not True"]),
        ({"rounds": 0}, ["rounds:", "at least 1", "not 0"]),
        ({"rounds": 1.5}, ["rounds:", "whole number", "1.5"]),
        ({"scope": "globl"}, ['scope "globl"', '"global"']),
        ({"score": "magnitud"}, ['score "magnitud"', '"magnitude"']),
        ({"structure": "neuron"}, ['structure "neuron"', '"neurons"']),
        ({"structure": "4:2"}, ["structure:", '"4:2"']),
        ({"leave_out": "output"}, ["leave_out:", '["output"]']),
        ({"scope": None}, ["scope:", "global", "not None"]),
        ({"score": None}, ["score:", "magnitude", "not None"]),
        ({"structure": None}, ["structure:", "neurons", "not None"]),
        ({"structure": "neurons", "cost": None}, ["cost:", "macs", "not None"]),
        ({"structure": "neurons", "group_score": None}, ["group_score:", "mean", "not None"]),
        ({"structure": "neurons", "group_score": ["mean"]}, ["group_score:", "mean", "not ['mean']"]),
        ({"rate": 0}, ["rate:", "between 0 and 1", "not 0"]),
        ({"rate": 1.5}, ["rate:", "between 0 and 1", "not 1.5"]),
        ({"rate": 0.2, "density": 0.1}, ["rate, density:"]),
        ({"rates": {"fc1": 1.0}}, ["rates:", '"fc1"', "less than 1", "not 1.0"]),
        ({"rates": {"fc1": 0.1}, "scope": "global"}, ["rates:", '"layer"', '"global"']),
        ({"output_rate": 0.1, "scope": "erk"}, ["output_rate:", '"layer"', '"erk"']),
        ({"density": 0}, ["density:", "greater than 0", "not 0"]),
        ({"density": 1.01}, ["density:", "at most 1", "not 1.01"]),
        ({"density": math.nan}, ["density:", "not nan"]),
        ({"density": "0.5"}, ["density:", "not '0.5'"]),
        ({"density": True}, ["density:", "not True"]),
        ({"density": {"fc1": 2}}, ['density of "fc1":', "not 2"]),
        ({"density": {"fc1": 0.5}, "scope": "global"}, ["density:", '"layer"', '"global"']),
        ({"structure": "2:4", "levels": 5}, ["levels:", '"2:4"', "not 5"]),
        ({"structure": "2:4", "rates": {"fc1": 0.5}}, ["rates:", '"2:4"']),
        ({"structure": "2:4", "density": 0.4}, ["density:", '"2:4"', "0.5", "not 0.4"]),
        ({"structure": "3:7", "rate": 0.5}, ["density:", '"3:7"', "0.428571", "not 0.5"]),
        ({"structure": "2:4", "density": {"fc1": 0.5}}, ["density:", '"2:4"']),
        ({"structure": "2:4", "scope": "erk"}, ["scope:", '"erk"', '"2:4"']),
        ({"structure": "neurons", "scope": "erk"}, ["scope:", '"erk"', '"neurons"']),
        ({"structure": Heads(2, output="o", qkv="qkv"), "scope": "erk"}, ["scope:", '"erk"', "heads"]),
    ],
)
def test_an_error_names_the_option_and_a_valid_value(options: dict[str, Any], facts: list[str]) -> None:
    with raises_input_error(*facts):
        PruningOptions(**options)


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        ({}, RATE),
        ({"rate": 0.3, "levels": 4}, 0.3),
        ({"density": 0.25, "levels": 2}, 0.5),
        ({"density": 1}, 0),
        ({"structure": "2:4"}, 0.5),
        ({"structure": "1:4", "density": 0.25}, 0.75),
    ],
)
def test_a_density_is_reached_in_equal_steps(options: dict[str, Any], rate: float) -> None:
    assert PruningOptions(**options).level_rate == pytest.approx(rate)


def test_the_scope_has_the_options_rates_and_layers() -> None:
    first, second, output = SHAPES
    last_two = {name: SHAPES[name] for name in (second, output)}

    def scope(**options: Any) -> Any:
        return PruningOptions(**options).scope_of(prunable_network(SHAPES))

    assert scope(rate=0.3) == Layerwise({first: 0.3, second: 0.3, output: 0.3})
    assert scope(rate=0.3, output_rate=0.1) == Layerwise({first: 0.3, second: 0.3, output: 0.1})
    assert scope(rates={"fc2": 0.5, "fc*": 0.4}, output_rate=0) == Layerwise({first: 0.4, second: 0.5, output: 0})
    assert scope(rates={"out*": 0.4}, output_rate=0.1).rates[output] == 0.4
    assert scope(density={"fc2": 0.25}, levels=2) == Layerwise({second: 0.5})
    assert scope(density={"*": 0.25}, leave_out=["fc*"]) == Layerwise({output: 0.75})
    assert scope(scope="global", rate=0.3, leave_out=["output"]) == Globally((first, second), 0.3)
    assert scope(scope="erk", rate=0.3, leave_out=["fc1"]) == ErdosRenyi(last_two, 0.3)


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"leave_out": ["outptu"]}, ["leave_out:", '"outptu"', '"output"']),
        ({"leave_out": ["*"]}, ["leave_out:", "every layer"]),
        ({"rates": {"fc3": 0.1}}, ["rates:", '"fc3"', '"fc2"']),
        ({"density": {"fc3": 0.1}}, ["density:", '"fc3"', '"fc2"']),
    ],
)
def test_names_that_match_no_layer_are_refused(options: dict[str, Any], facts: list[str]) -> None:
    with raises_input_error(*facts):
        PruningOptions(**options).scope_of(prunable_network(SHAPES))
