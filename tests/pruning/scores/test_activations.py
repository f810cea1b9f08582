from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from tests.pruning.scores.helpers import Batch, convolutional, examples, linear, of_network
from tombola.pruning.scores.activations import wanda
from tombola.utils.errors import InputError


def total(network: nn.Module, x: Tensor) -> Tensor:
    return network(x).sum()


def test_a_linear_weight_is_weighed_by_the_norm_of_its_input_feature() -> None:
    network, batches = linear().requires_grad_(False), examples((4,))
    found = wanda(of_network(network, batches))
    x = torch.cat([x for x, _ in batches])
    for name, seen in (("0.weight", x), ("2.weight", network[:2](x))):
        weight = dict(network.named_parameters())[name]
        for out, feature in itertools.product(*map(range, weight.shape)):
            norm = sum(float(value) ** 2 for value in seen[:, feature]) ** 0.5
            assert float(found[name][out, feature]) == pytest.approx(abs(float(weight[out, feature])) * norm)


def test_features_of_tokens_are_those_of_all_tokens() -> None:
    layer, x = nn.Linear(3, 2), torch.randn(4, 5, 3)
    norms = x.flatten(0, 1).norm(dim=0)
    torch.testing.assert_close(wanda(of_network(layer, [x], total))["weight"], layer.weight.abs() * norms)


def test_a_filter_is_weighed_by_the_norms_of_the_channels_of_its_group() -> None:
    network, batches = convolutional().requires_grad_(False), examples((2, 4, 4))
    found = wanda(of_network(network, batches))
    x = torch.cat([x for x, _ in batches])
    for name, seen, groups in (("0.weight", x, 1), ("2.weight", network[:2](x), 2)):
        weight = dict(network.named_parameters())[name]
        for index in itertools.product(*map(range, weight.shape)):
            out, channel, *_ = index
            group = out // (len(weight) // groups)
            norm = float(seen[:, group * weight.shape[1] + channel].norm())
            assert float(found[name][index]) == pytest.approx(abs(float(weight[index])) * norm)


def test_of_a_transposed_convolution_inputs_come_first() -> None:
    layer, x = nn.ConvTranspose2d(4, 6, 3, groups=2), torch.randn(2, 4, 5, 5)
    found = wanda(of_network(layer, [x], total))["weight"]
    for channel in range(4):
        torch.testing.assert_close(found[channel], layer.weight[channel].abs() * x[:, channel].norm())


def test_a_weight_that_layers_share_sees_the_inputs_of_all() -> None:
    network = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False))
    network[2].weight = network[0].weight
    x = torch.randn(5, 3)
    norms = torch.cat([x, network[:2](x)]).norm(dim=0)
    torch.testing.assert_close(wanda(of_network(network, [x], total))["0.weight"], network[0].weight.abs() * norms)


def test_layers_that_nothing_goes_through_score_nothing_and_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    network = nn.ModuleDict({"used": nn.Linear(3, 2), "unused": nn.Linear(3, 2)})
    found = wanda(of_network(network, [torch.ones(1, 3)], lambda net, x: total(net["used"], x)))
    assert found["used.weight"].all()
    assert not found["unused.weight"].any()
    assert caplog.messages == ["wanda has not seen any input of unused: its weights score nothing"]


def test_it_looks_at_labels_only_through_the_loss_and_at_no_gradient() -> None:
    network, (batch,) = linear(), examples((4,), (5,))

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        assert not torch.is_grad_enabled()
        assert not network.training
        return total(network, batch[0])

    wanda(of_network(network, [batch], loss))


def test_what_is_missing_is_said() -> None:
    with pytest.raises(InputError, match="looks at training examples"):
        wanda(of_network(linear()))
    with pytest.raises(InputError, match="data has not one batch"):
        wanda(of_network(linear(), []))
