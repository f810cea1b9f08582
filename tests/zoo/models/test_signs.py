from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tombola.runs.initial_state import initial_network
from tombola.zoo.models import build
from tombola.zoo.models.description import Network, Signs, Start, Trained
from tombola.zoo.models.initialise import change_signs

NETWORK = Network(name="resnet", options={"depth": 8, "width": 2}, inputs=(8, 8), classes=10)
ONE, OTHER = Start(network=NETWORK, seed=1), Start(network=NETWORK, seed=2)


def test_drawn_signs_change_half_of_the_matrix_weights_and_nothing_else() -> None:
    before, after = build(ONE), initial_network(ONE.model_copy(update={"signs": Signs(seed=3)}))
    changed = total = 0
    for name, parameter in before.named_parameters():
        now = after.get_parameter(name)
        assert torch.equal(now.abs(), parameter.abs())
        if parameter.ndim > 1:
            changed, total = changed + int((now != parameter).sum()), total + parameter.numel()
        else:
            assert torch.equal(now, parameter)
    assert abs(changed / total - 0.5) < 3 / total**0.5


@pytest.mark.parametrize("given", [{}, {"seed": 1, "of": OTHER}])
def test_signs_have_exactly_one_source(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="exactly one of seed and of"):
        Signs(**given)


def test_normalisation_is_taken_from_the_trained_network_on_demand() -> None:
    trained = {name: tensor + 1 for name, tensor in build(OTHER).state_dict().items()}
    of = OTHER.model_copy(update={"trained": Trained(run="key")})
    plain = build(ONE)
    for normalisation in (False, True):
        signs = Signs(of=of, normalisation=normalisation)
        network = initial_network(ONE.model_copy(update={"signs": signs}), lambda key, **_: trained)  # noqa: ARG005
        for path, module in network.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                state = trained if normalisation else plain.state_dict()
                assert torch.equal(module.weight, state[f"{path}.weight"])
                assert torch.equal(module.bias, state[f"{path}.bias"])
            elif isinstance(module, nn.Conv2d | nn.Linear):
                assert torch.equal(module.weight.sign(), trained[f"{path}.weight"].sign())
                assert torch.equal(module.weight.abs(), plain.get_parameter(f"{path}.weight").abs())


def test_weights_whose_counterpart_is_zero_keep_their_signs() -> None:
    network, other = build(ONE), build(OTHER)
    zero = next(name for name, parameter in other.named_parameters() if parameter.ndim > 1)
    nn.init.zeros_(other.get_parameter(zero))
    before = network.get_parameter(zero).detach().clone()
    change_signs(network, Signs(of=OTHER), lambda start: other)  # noqa: ARG005
    assert torch.equal(network.get_parameter(zero), before)


def test_a_start_without_signs_has_the_description_it_had() -> None:
    assert "signs" not in ONE.model_dump(mode="json", exclude_defaults=True)
