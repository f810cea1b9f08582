"""Losses of scores, and the batches that they take."""

from __future__ import annotations

from collections import UserDict, namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.errors import raises_input_error
from tests.support.scores import linear, of_network
from tombola.pruning.prune_model import prune
from tombola.pruning.scores.gradients import fisher, grasp, snip, taylor
from tombola.pruning.scores.growth import gradient
from tombola.pruning.scores.inputs import ScoreInputs, generators, repeatable
from tombola.pruning.scores.losses import LOSSES, cross_entropy, loss_function, mse

X, Y = torch.randn(8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.arange(8) % 3
Pair = namedtuple("Pair", ["x", "y"])
DIFFERENTIATED = {"snip": snip, "taylor": taylor, "fisher": fisher, "grasp": grasp, "gradient": gradient}

each_score = pytest.mark.parametrize("score", DIFFERENTIATED)


def regression() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()


def constant(outputs: Tensor) -> nn.Module:
    """A network with these outputs."""
    network = nn.Module()
    network.forward = lambda x: outputs  # type: ignore[method-assign] # noqa: ARG005
    return network


@pytest.mark.parametrize("score", ["snip", "taylor", "fisher", "grasp", "wanda"])
def test_one_output_is_no_classification(score: str) -> None:
    """Its cross entropy is always zero, and so would be all scores."""
    with raises_input_error("model:", "(", ", 1)", 'loss="mse"', "loss(network, batch)"):
        prune(regression(), 0.2, score=score, data=[(X, X[:, :1])])
    assert prune(regression(), 0.5, score=score, data=[(X, X[:, :1])], loss="mse").count == 15


def test_probabilities_are_labels_too() -> None:
    one_hot = functional.one_hot(Y, 3).double()
    found = [snip(of_network(linear(), [(X, y)])) for y in (Y, one_hot, one_hot.float())]
    for name, scores in found[0].items():
        torch.testing.assert_close(found[1][name], scores)
        torch.testing.assert_close(found[2][name], scores)


@pytest.mark.parametrize(
    ("y", "facts"),
    [
        (torch.rand(8), ["y", "(8,)", "(8, 3)", 'loss="mse"']),
        (torch.randn(8, 3), ["(8, 3)", "probabilities"]),
        (torch.eye(3)[Y] * 2, ["probabilities"]),
        (Y[:, None], ["labels", "(8, 1)", "(8,)"]),
        (Y[:4], ["(4,)", "(8,)"]),
        (Y + 1, ["label 3", "3 classes"]),
        (Y - 1, ["label -1", "3 classes"]),
        ([0] * 8, ["tensor y", "list"]),
        (None, ["tensor y", "NoneType"]),
    ],
)
def test_labels_that_do_not_fit_the_outputs_are_refused(y: Any, facts: list[str]) -> None:
    with raises_input_error("data:", *facts):
        snip(of_network(linear(), [(X, y)]))


@pytest.mark.parametrize("y", [Y, Y.int(), Y.to(torch.uint8), torch.where(Y == 2, -100, Y)])
def test_labels_of_any_integer_type_are_accepted(y: Tensor) -> None:
    torch.testing.assert_close(cross_entropy(linear(), (X, y)), functional.cross_entropy(linear()(X), y.long()))


def test_outputs_with_further_dimensions_have_classes_second() -> None:
    outputs, y = torch.randn(2, 3, 5), torch.randint(3, (2, 5))
    assert cross_entropy(constant(outputs), (X, y)) == functional.cross_entropy(outputs, y)
    with raises_input_error("(2, 5)", "(2, 3)"):
        cross_entropy(constant(outputs.mT), (X, y))
    assert cross_entropy(constant(outputs[0, :, 0]), (X, y[0, 0])).isfinite()  # a single example


@pytest.mark.parametrize("outputs", [torch.randn(8), torch.randn(())])
def test_outputs_without_classes_are_refused(outputs: Tensor) -> None:
    with raises_input_error("shape"):
        cross_entropy(constant(outputs), (X, torch.rand(outputs.shape)))


@pytest.mark.parametrize("outputs", [{"logits": X}, (X, X), None])
def test_outputs_that_are_no_tensor_are_refused(outputs: Any) -> None:
    with raises_input_error("model:", type(outputs).__name__, "loss(network, batch)"):
        cross_entropy(constant(outputs), (X, Y))


def test_mse_takes_numbers_of_the_shape_of_the_outputs() -> None:
    outputs = torch.randn(8, 1)
    for y in (torch.randn(8, 1), torch.randn(8), torch.arange(8)):
        expected = (outputs[:, 0] - y.view(-1)).square().mean()
        torch.testing.assert_close(mse(constant(outputs), (X, y)), expected)
    with raises_input_error("y", "(8, 2)", "(8, 1)"):  # which would be broadcast
        mse(constant(outputs), (X, torch.randn(8, 2)))


def test_losses_have_names() -> None:
    assert {name: loss_function(name) for name in LOSSES} == LOSSES
    assert loss_function(mse) is mse
    with raises_input_error('"mes"', '"mse"?'):
        prune(linear(), 0.5, loss="mes")
    with raises_input_error("loss:", "int"):
        prune(linear(), 0.5, loss=3)  # type: ignore[arg-type]


@each_score
@pytest.mark.parametrize("batch", [(X, Y), [X, Y], Pair(X, Y)])
def test_pairs_of_any_kind_are_batches(score: str, batch: Any) -> None:
    found = DIFFERENTIATED[score](of_network(linear(), [batch]))
    expected = DIFFERENTIATED[score](of_network(linear(), [(X, Y)]))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@each_score
@pytest.mark.parametrize("batch", [{"x": X, "y": Y}, X, (X,), (X, Y, Y), None, "xy"])
def test_other_batches_need_a_loss(score: str, batch: Any) -> None:
    with raises_input_error("data:", type(batch).__name__):
        DIFFERENTIATED[score](of_network(linear(), [batch]))


@each_score
def test_a_pair_of_tensors_is_no_list_of_batches(score: str) -> None:
    with raises_input_error("data:", "batches (x, y)", "Tensor"):
        DIFFERENTIATED[score](of_network(linear(), (X, Y)))


class Batch(UserDict):  # type: ignore[type-arg]
    """A dictionary with attributes, such as those of tokenizers."""

    @property
    def x(self) -> Tensor:
        return self["x"]

    @property
    def y(self) -> Tensor:
        return self["y"]


@each_score
@pytest.mark.parametrize("batch", [Batch(x=X, y=Y), Pair(X, {"y": Y}), {"x": X, "y": Y}])
def test_batches_of_any_kind_work_with_a_loss(score: str, batch: Any) -> None:
    def loss(network: nn.Module, batch: Any) -> Tensor:
        x, y = (batch["x"], batch["y"]) if isinstance(batch, dict) else (batch.x, batch.y)
        return cross_entropy(network, (x, y["y"] if isinstance(y, dict) else y))

    found = DIFFERENTIATED[score](of_network(linear(), [batch], loss))
    expected = DIFFERENTIATED[score](of_network(linear(), [(X, Y)]))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_fisher_refuses_what_it_cannot_divide_into_examples() -> None:
    with raises_input_error("data:", "fisher", "NoneType"):
        fisher(of_network(linear(), [None], lambda network, _: network(X).sum()))


@each_score
@pytest.mark.parametrize(
    ("loss", "facts"),
    [
        (lambda network, batch: network(batch[0]), ["scalar", ", 3)"]),
        (lambda network, batch: network(batch[0]).sum().item(), ["scalar", "float"]),
        (lambda *_: None, ["scalar", "NoneType"]),
        (lambda network, batch: network(batch[0]).sum().detach(), ["gradient", "detached"]),
    ],
)
def test_losses_without_a_gradient_are_refused(score: str, loss: Any, facts: list[str]) -> None:
    with raises_input_error("loss:", *facts):
        DIFFERENTIATED[score](of_network(linear(), [(X, Y)], loss))


@pytest.mark.parametrize("data", [5, None.__class__, object()])
def test_what_has_no_batches_is_refused(data: Any) -> None:
    with raises_input_error("data:", "iterable"):
        repeatable(data)


@pytest.mark.parametrize("score", ["wanda", "synflow"])
def test_scores_without_gradients_refuse_a_dictionary_too(score: str) -> None:
    with raises_input_error("data:", "dict"):
        prune(linear(), 0.5, score=score, data=[{"x": X, "y": Y}])


def test_the_generators_of_a_loader_are_found() -> None:
    one, other = torch.Generator(), torch.Generator()
    loader = torch.utils.data.DataLoader(X, shuffle=True, generator=one)  # type: ignore[arg-type, var-annotated]
    sampler = torch.utils.data.RandomSampler(X, generator=other)  # type: ignore[arg-type]
    assert generators(loader) == [one]
    assert generators(torch.utils.data.DataLoader(X, sampler=sampler)) == [other]  # type: ignore[arg-type]
    assert generators([(X, Y)]) == []


def test_inputs_have_a_loss_by_default() -> None:
    assert ScoreInputs({}, of_network(linear()).mask).loss is cross_entropy
