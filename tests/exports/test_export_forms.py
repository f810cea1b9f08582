"""Exports of networks with other inputs and outputs than one tensor of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import pytest
import torch
from torch import Tensor, nn

from tests.support.digits_tickets import ticket_of
from tests.support.errors import raises_input_error
from tests.support.export_networks import FunctionNetwork, images
from tests.support.user_networks import Features, Pair, Tokens, with_dead_units
from tombola.exports.artefacts import load_compact
from tombola.exports.benchmark import Artefact, count_multiply_adds, measure
from tombola.exports.examples import Examples
from tombola.exports.export import export
from tombola.exports.export_result import Export, read_export
from tombola.exports.onnx_file import read_onnx, write_onnx
from tombola.exports.torch_export import read_exported
from tombola.utils.model_inputs import call, rows, tensors

pytestmark = pytest.mark.usefixtures("quick_export")

IDS = torch.randint(20, (30, 4), generator=torch.Generator().manual_seed(0))
KEPT = (torch.arange(120).reshape(30, 4) % 3 > 0).long()
Y = torch.arange(30) % 3
LEFT_OUT = {"ticket, dense ONNX", "two-four"}


def exported(network: nn.Module, x: Any, y: Tensor | None, folder: Path, **options: Any) -> Export:
    return export(ticket_of(network), folder, network=network, examples=Examples(x, y), turns=1, **options)


def accuracy(network: nn.Module, x: Any, y: Tensor, scores: int = 0) -> float:
    with torch.no_grad():
        out = [*tensors(call(network.eval(), x))][scores]
    return (out.argmax(1) == y).double().mean().item()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("gives_loss", [False, True])
@pytest.mark.parametrize(
    "x", [IDS, (IDS, KEPT), {"attention_mask": KEPT, "input_ids": IDS}], ids=["tensor", "tuple", "dict"]
)
def test_token_ids_in_any_form(tmp_path: Path, x: Any, gives_loss: bool) -> None:
    network = with_dead_units(Tokens(gives_loss))
    made = exported(network, x, Y, tmp_path)
    assert set(made.left_out) == {*LEFT_OUT, "sparse"}
    outputs = [each for each in made.figures if each.name != "CSR"]
    assert [each.name for each in outputs] == [
        "ticket, dense PyTorch", "ticket, fp16", "compact PyTorch", "compact exported", "compact ONNX",
        "compact int8",
    ]  # fmt: skip
    assert outputs[0].accuracy == accuracy(network, x, Y, scores=int(gives_loss))
    assert all(each.accuracy is not None for each in outputs)  # rounding may decide some of these
    assert all(each.difference is not None and each.difference < 0.05 for each in outputs)
    assert outputs[0].multiply_adds == 8 * 32 + 32 * 3
    assert read_export(tmp_path) == made
    assert "int64 (N, 4)" in made.about.inputs
    assert made.about.examples == 30
    loaded = load_compact(tmp_path / "compact.safetensors", network, rows(x, slice(2)))
    for read in (loaded, read_exported(tmp_path / "compact.pt2"), read_onnx(tmp_path / "compact.onnx")):
        with torch.no_grad():
            for before, after in zip(tensors(call(network, x)), tensors(call(read, x)), strict=True):
                torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_several_numbers_and_options(tmp_path: Path) -> None:
    network = with_dead_units(Pair())
    x = {"x": images(30, 10), "y": images(30, 6), "scale": 2.0, "mask": None}
    made = exported(network, x, Y % 2, tmp_path)
    assert "dict" in made.left_out["sparse"]
    assert {"exported", "onnx"}.isdisjoint(made.left_out)
    assert made.about.inputs == "x: float32 (N, 10); y: float32 (N, 6)"
    assert made.figures[0].multiply_adds == 10 * 64 + 6 * 64 + 64 * 2


def test_a_tuple_of_one_tensor_is_sparse_too(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 3))
    made = exported(network, (images(30, 10),), Y, tmp_path, kinds=["sparse"], strict=True)
    assert made.figures[-1].difference == pytest.approx(0, abs=1e-4)


def test_a_network_that_keeps_its_features_is_exported(tmp_path: Path) -> None:
    network, x = with_dead_units(Features()), images(30, 10)
    network(x)
    made = exported(network, x, Y % 2, tmp_path)
    assert set(made.left_out) == LEFT_OUT
    assert made.figures[0].accuracy == accuracy(network, x, Y % 2)


class Scores(NamedTuple):
    scores: Tensor


@dataclass
class Output:
    cache: object
    logits: Tensor
    loss: Tensor | None = None


def test_outputs_of_own_classes_are_plain_in_the_files(tmp_path: Path) -> None:
    named = FunctionNetwork(lambda n, x: Scores(n.a(x)), a=nn.Linear(10, 3))
    own = FunctionNetwork(lambda n, x: Output(object(), n.a(x), n.a(x).sum()), a=nn.Linear(10, 3))
    for network, expected in ((named, tuple), (own, dict)):
        made = exported(network, images(30, 10), Y, tmp_path, kinds=["exported", "onnx", "csr"], strict=True)
        assert [each.difference for each in made.figures[:3]] == [pytest.approx(0, abs=1e-4)] * 3
        assert made.figures[1].accuracy is not None
        assert type(read_exported(tmp_path / "compact.pt2")(images(3, 10))) is expected
    assert [*read_exported(tmp_path / "compact.pt2")(images(3, 10))] == ["logits", "loss"]
    assert [*read_onnx(tmp_path / "compact.onnx")(images(3, 10))] == ["logits", "loss"]


@pytest.mark.parametrize("device", ["meta", "lazy"])
def test_networks_without_values_are_an_error(tmp_path: Path, device: str) -> None:
    ticket = ticket_of(nn.Sequential(nn.Linear(10, 3)))
    network = nn.Sequential(nn.LazyLinear(3) if device == "lazy" else nn.Linear(10, 3, device="meta"))
    with raises_input_error("0.weight"):
        export(ticket, tmp_path / "new", network=network, examples=Examples(images(3, 10)))
    assert not (tmp_path / "new").exists()


def test_names_in_the_onnx_file(tmp_path: Path) -> None:
    def names(network: nn.Module, x: Any) -> tuple[list[str], list[str]]:
        write_onnx(network, x, tmp_path / "net.onnx")
        graph = onnx.load(tmp_path / "net.onnx").graph
        batches = {
            value.type.tensor_type.shape.dim[0].dim_param
            for value in (*graph.input, *graph.output)
            if value.type.tensor_type.shape.dim
        }
        assert batches == {"batch"}
        return [value.name for value in graph.input], [value.name for value in graph.output]

    assert names(Tokens(), (IDS, KEPT)) == (["input_ids", "attention_mask"], ["output"])
    assert names(Tokens(gives_loss=True), {"attention_mask": KEPT, "input_ids": IDS}) == (
        ["attention_mask", "input_ids"],
        ["loss", "logits"],
    )
    pair = FunctionNetwork(lambda n, x: (n.a(x), [n.a(x) + 1]), a=nn.Linear(10, 3))
    assert names(pair, images(3, 10)) == (["input"], ["output_0", "output_1"])
    own = FunctionNetwork(lambda n, x: {"input": n.a(x), "b": n.a(x) + 1}, a=nn.Linear(10, 3))
    assert names(own, images(3, 10)) == (["input"], ["output_0", "output_1"])


def test_multiply_adds_of_layers_called_by_keyword() -> None:
    def forward(n: Any, x: Tensor) -> Tensor:
        out: Tensor = n.up(input=n.conv(input=x))
        return out

    network = FunctionNetwork(forward, conv=nn.Conv2d(1, 4, 3, padding=1), up=nn.ConvTranspose2d(4, 2, 2, stride=2))
    assert count_multiply_adds(network, {"x": images(3, 1, 5, 5)}) == 25 * 9 * 4 + 25 * 4 * 2 * 4


def test_all_outputs_are_compared_and_scores_are_those_of_the_first_artefact() -> None:
    x, y = torch.eye(3), torch.arange(3)
    dense = Artefact("dense", 1, 1, 1, 1, lambda x: {"loss": x.sum(), "hidden": x + 5, "logits": x})
    flat = Artefact("flat", 1, 1, 1, 1, lambda x: [x.sum(), x * torch.nan, x + 0.5])
    first, second = measure([dense, flat], x, y, rounds=1)
    assert (first.accuracy, first.difference, first.not_finite) == (1.0, 0.0, 0)
    assert (second.accuracy, second.difference, second.not_finite) == (1.0, None, 3)
    other = Artefact("other", 1, 1, 1, 1, lambda x: [x.sum() + 3, x + 5, x])
    assert measure([dense, other], x, y, rounds=1)[1].difference == 3.0
