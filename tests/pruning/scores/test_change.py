from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.pruning.scores.helpers import grounds
from tombola.pruning.mask import Mask
from tombola.pruning.scores import SCORES, Score, change
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.utils.errors import InputError

INITIAL = [1.0, -2.0, 3.0, -0.5, 0.0]
FINAL = [-1.5, -1.0, 0.5, -4.0, 2.0]


@pytest.mark.parametrize(
    ("score", "formula"),
    [
        (change.large_init, lambda i, f: abs(i)),  # noqa: ARG005
        (change.small_init, lambda i, f: -abs(i)),  # noqa: ARG005
        (change.magnitude_increase, lambda i, f: abs(f) - abs(i)),
        (change.distance, lambda i, f: abs(f - i)),
        (change.large_final_same_sign, lambda i, f: max(0, math.copysign(1, i) * f if i else 0)),
        (change.large_final_diff_sign, lambda i, f: max(0, -math.copysign(1, i) * f if i else 0)),
        (change.movement, lambda i, f: (f * f - i * i) / 2),
    ],
)
def test_each_criterion_is_its_formula(score: Score, formula: Callable[[float, float], float]) -> None:
    found = score(grounds(start={"a": torch.tensor(INITIAL)}, a=torch.tensor(FINAL)))["a"]
    assert found.tolist() == [formula(initial, final) for initial, final in zip(INITIAL, FINAL, strict=True)]


@pytest.mark.parametrize("score", [change.large_init_large_final, change.small_init_small_final])
def test_both_magnitudes_are_cut_off_at_the_same_fraction_whatever_is_kept(score: Score) -> None:
    """With the scale α that makes the two thresholds the same quantile, the paper's criterion is this quadrant."""
    torch.manual_seed(0)
    initial, final = torch.randn(200), 3 * torch.randn(200)
    found = score(grounds(start={"a": initial}, a=final))["a"]
    sign = 1 if score is change.large_init_large_final else -1
    for quantile in torch.arange(0, 1, 0.02).tolist():
        large = sign * initial.abs() > (sign * initial.abs()).quantile(quantile)
        quadrant = large & (sign * final.abs() > (sign * final.abs()).quantile(quantile))
        count = int(quadrant.sum())
        assert set(found.argsort(descending=True)[:count].tolist()) == set(quadrant.nonzero().flatten().tolist())


def test_ranks_are_among_the_weights_that_are_left() -> None:
    weights, start = {"a": torch.tensor([0.0, 1.0, 2.0, 3.0])}, {"a": torch.tensor([9.0, 8.0, 7.0, 6.0])}
    mask = Mask({"a": torch.tensor([False, True, True, True])})
    found = change.large_init_large_final(ScoreInputs(weights, mask, _start=lambda: start))["a"]
    assert found[1:].tolist() == [0, pytest.approx(1 / 3), 0]


def test_movement_is_what_the_paper_accumulates_over_a_training_of_small_steps() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = torch.randn(20, 4, dtype=torch.float64), torch.randint(3, (20,))
    start = {name: value.clone() for name, value in network.state_dict().items()}
    lr, names = 1e-3, ["0.weight", "2.weight"]
    parameters = dict(network.named_parameters())
    accumulated: dict[str, Tensor] = {name: torch.zeros_like(parameters[name]) for name in names}
    for _ in range(2000):
        gradients = torch.autograd.grad(functional.cross_entropy(network(x), y), list(parameters.values()))
        with torch.no_grad():
            for (name, weight), gradient in zip(parameters.items(), gradients, strict=True):
                if name in accumulated:
                    accumulated[name] -= lr * gradient * weight
                weight -= lr * gradient
    weights = {name: parameters[name].detach() for name in names}
    found = change.movement(grounds(start=start, **weights))
    for name in names:
        torch.testing.assert_close(found[name], accumulated[name], rtol=0, atol=1e-4)
        assert accumulated[name].abs().max() > 0.05  # it is not that both are nothing


@pytest.mark.parametrize(
    "name",
    ["large_init", "small_init", "magnitude_increase", "distance", "movement", "large_init_large_final"],
)
def test_without_initial_weights_it_says_so(name: str) -> None:
    with pytest.raises(InputError, match=r"looks at the initial weights.*give start=STATE"):
        SCORES[name](grounds(a=torch.ones(2)))
