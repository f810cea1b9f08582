"""Searches of several levels whose units go several at a time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from tests.support.errors import raises_input_error
from tests.support.structures import network
from tombola.pruning.options import PruningOptions
from tombola.pruning.scopes import goals
from tombola.pruning.scores.inputs import ScoreInputs


def left_after_levels(*widths: int, **given: Any) -> list[int]:
    """What all groups have left, from the dense network on."""
    made, options = network(*widths), PruningOptions(structure="neurons", **given)
    prunable = options.prunable(made, torch.zeros(2, widths[0]))
    pruner, mask = options.pruner(prunable), prunable.dense
    pruner.check_levels(mask, options.levels)
    expected = goals(pruner.scope, pruner.units_left(mask), options.levels)
    found = [sum(pruner.units_left(mask).values())]
    for goal in expected:
        mask = pruner(ScoreInputs({name: made.get_parameter(name).detach() for name in mask}, mask))
        found.append(sum(pruner.units_left(mask).values()))
        assert found[-1] <= sum(goal.values())
        assert found[-1] == sum(goal.values()) or not pruner.exact
    assert all(after < before for before, after in pairwise(found))
    return found


@pytest.mark.parametrize(
    ("widths", "density", "levels", "options"),
    [
        ((8, 64, 4), 0.33, 5, {}),
        ((8, 256, 4), 0.5, 8, {}),
        ((8, 64, 48, 4), 0.33, 4, {"scope": "global"}),
        ((8, 64, 64, 4), 0.4, 4, {"cost": "macs"}),
        ((8, 64, 64, 4), 0.4, 4, {"cost": "weights", "scope": "global"}),
    ],
)
def test_rounding_does_not_add_up_over_levels(
    widths: tuple[int, ...], density: float, levels: int, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    dense, *_, last = left_after_levels(*widths, density=density, levels=levels, round_to=8, **options)
    unit = max(a + b for a, b in zip(widths, widths[2:], strict=False)) if "cost" in options else 1
    assert density * dense - 8 * unit < last <= density * dense


@pytest.mark.parametrize(
    ("widths", "options"),
    [
        ((8, 64, 4), {"rate": 0.05, "round_to": 8}),
        ((16, 20, 12, 12), {"rate": 0.4, "cost": "macs", "scope": "global", "round_to": 8}),
        ((8, 64, 4), {"rate": 0.4, "round_to": 1000}),
    ],
)
def test_a_level_that_removes_nothing_is_refused_and_names_round_to(
    widths: tuple[int, ...], options: dict[str, Any]
) -> None:
    with raises_input_error("remove nothing", "round_to"):
        left_after_levels(*widths, levels=2, **options)


def test_a_step_from_what_is_least_is_refused() -> None:
    made, options = network(4, 8, 8, 2), PruningOptions(structure="neurons", rate=0.5, round_to=8, scope="global")
    prunable = options.prunable(made)
    with raises_input_error("nothing more", "round_to"):
        options.pruner(prunable)(
            ScoreInputs({name: p.detach() for name, p in made.named_parameters()}, prunable.dense)
        )


@pytest.mark.parametrize("given", [{}, {"cost": "macs"}, {"scope": "global"}])
def test_the_rate_of_output_layers_has_no_effect_on_coupled_units(given: dict[str, Any]) -> None:
    kept = left_after_levels(8, 20, 4, rate=0.2, levels=2, **given)
    assert left_after_levels(8, 20, 4, rate=0.2, levels=2, output_rate=0.1, **given) == kept
