from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.digits_tickets import context_of, digits_context, digits_test, digits_ticket
from tombola.exports import artefacts as module
from tombola.exports.artefact_files import FILES
from tombola.exports.artefacts import ARTEFACTS, ExportContext, dense, dense_onnx, load_compact
from tombola.exports.benchmark import Artefact, Figures, measure, weighted_layers
from tombola.exports.onnx_file import initializer_bytes
from tombola.exports.torch_export import read_exported
from tombola.pruning.mask import Mask
from tombola.pruning.prune_model import prune
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError

FP16 = 0.05
"""The allowed difference of outputs of the ticket file, whose weights are rounded."""

INT8 = 0.5
"""The same of weights of 7 bits; outputs are up to 53."""
ROUNDING = 1e-4


def made(one: ExportContext) -> dict[str, Artefact]:
    """All artefacts but 2:4, by kind."""
    kinds = {"dense": dense, "dense-onnx": dense_onnx} | {k: make for k, make in ARTEFACTS.items() if k != "two-four"}
    return {kind: make(one) for kind, make in kinds.items()}


Everything = tuple[ExportContext, dict[str, Artefact]]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Everything:
    """All artefacts of a ticket with convolutions and linear layers."""
    one = digits_context(digits_ticket("conv", density=0.1), tmp_path_factory.mktemp("conv"), about={"said": 1})
    before = copy.deepcopy((one.network.state_dict(), one.compact.state_dict()))
    artefacts = made(one)
    for state, was in zip((one.network.state_dict(), one.compact.state_dict()), before, strict=True):
        assert all(torch.equal(state[name], was[name]) for name in was)  # making them does not change the networks
    return one, artefacts


def figures(artefacts: dict[str, Artefact]) -> dict[str, Figures]:
    return dict(zip(artefacts, measure(list(artefacts.values()), *digits_test(), rounds=1), strict=True))


def undecided(network: nn.Module, difference: float) -> float:
    """The share of test examples whose prediction may change if outputs differ by so much."""
    with torch.inference_mode():
        first, second = network(digits_test()[0]).topk(2).values.unbind(1)
    return (first - second <= 2 * difference).double().mean().item()


@pytest.mark.usefixtures("quick")
def test_all_artefacts_are_as_accurate_as_the_dense_network(everything: Everything) -> None:
    measured = figures(everything[1])
    accuracy = measured["dense"].accuracy
    assert accuracy is not None
    for kind, found in measured.items():
        if kind == "csr":
            assert (found.accuracy, found.difference) == (None, None)
        else:
            assert found.difference < {"ticket": FP16, "int8": INT8}.get(kind, ROUNDING), kind
            unsure = undecided(everything[0].network, found.difference)
            assert abs(found.accuracy - accuracy) <= unsure, kind
            assert (found.latency is None) == (kind == "ticket")
            assert found.not_finite == 0
    assert measured["ticket"].difference > 0  # rounding shows that the file was read


def test_sizes_are_those_of_the_files(everything: Everything) -> None:
    one, artefacts = everything
    assert all(each.bytes == (one.folder / each.file).stat().st_size for each in artefacts.values())
    assert len({each.file for each in artefacts.values()}) == len({each.name for each in artefacts.values()}) == 9
    assert sorted(path.name for path in one.folder.iterdir()) == sorted(each.file for each in artefacts.values())
    assert FILES.keys() == ARTEFACTS.keys()
    assert {kind: artefacts[kind].file for kind in FILES if kind in artefacts}.items() <= FILES.items()


def test_weights_are_counted_exactly(everything: Everything) -> None:
    one, artefacts = everything
    numel = sum(layer.weight.numel() for layer in weighted_layers(one.network).values())
    smaller = sum(layer.weight.numel() for layer in weighted_layers(one.compact).values())
    count = one.ticket.mask.count
    assert one.ticket.mask.size == numel
    assert count < smaller < numel
    assert artefacts["dense"].weights == artefacts["dense-onnx"].weights == numel
    assert {artefacts[kind].weights for kind in ("compact", "exported", "onnx", "int8")} == {smaller}
    assert artefacts["ticket"].weights == artefacts["csr"].weights == count


def test_memory_and_workspace_are_those_of_the_loaded_artefact(everything: Everything) -> None:
    one, artefacts = everything
    assert artefacts["dense"].memory == 4 * sum(p.numel() for p in one.network.parameters())
    assert artefacts["compact"].memory == 4 * sum(p.numel() for p in one.compact.parameters())
    assert artefacts["sparse"].memory < artefacts["compact"].memory < artefacts["dense"].memory
    for kind in ("dense-onnx", "onnx"):
        assert artefacts[kind].memory == initializer_bytes(one.folder / artefacts[kind].file)
    assert artefacts["exported"].memory == artefacts["compact"].memory
    with np.load(one.folder / "csr.npz") as arrays:
        assert artefacts["csr"].memory == sum(arrays[name].nbytes for name in arrays)
    assert artefacts["ticket"].memory is None
    sparse = artefacts["sparse"]
    assert sparse.working == sparse.predict.working(256) > 0  # type: ignore[attr-defined]
    assert all(each.working is None for kind, each in artefacts.items() if kind != "sparse")


def work(network: nn.Module, image: int) -> int:
    """Multiply-adds for an image of `image` × `image` pixels, of padded 3×3 convolutions and linear layers."""
    done = 0
    for layer in weighted_layers(network).values():
        if isinstance(layer, nn.Conv2d):
            done += image * image * 9 * layer.in_channels * layer.out_channels
        else:
            done += layer.in_features * layer.out_features
    return done


def test_multiply_adds_are_counted_exactly(everything: Everything) -> None:
    one, artefacts = everything
    for kind in ("dense", "dense-onnx"):
        assert artefacts[kind].multiply_adds == work(one.network, 8)
    for kind in ("compact", "exported", "onnx"):
        assert artefacts[kind].multiply_adds == work(one.compact, 8)
    assert 0 < artefacts["sparse"].multiply_adds <= work(one.compact, 8)
    assert artefacts["ticket"].multiply_adds is artefacts["csr"].multiply_adds is None


def test_a_compact_file_is_loaded_into_the_original_architecture(everything: Everything) -> None:
    one, _ = everything
    loaded = load_compact(one.folder / "compact.safetensors", one.network)
    assert not loaded.training
    with torch.inference_mode():
        x = digits_test()[0]
        assert torch.equal(loaded(x), one.compact(x))


@pytest.mark.parametrize("kind", ["dense", "compact"])
def test_outputs_are_those_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    one, write = digits_context(digits_ticket(), tmp_path), module.write_tensors

    def wrong(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        write(path, {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}, about)

    monkeypatch.setattr(module, "write_tensors", wrong)
    answers = {"dense": dense, **ARTEFACTS}[kind](one).predict
    assert not answers(one.example).any()
    assert one.network(one.example).any()


class Constants(nn.Module):
    """Has a parameter, a buffer, a constant, and an unused layer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.register_buffer("shift", torch.zeros(3), persistent=False)
        self.constant = torch.arange(3.0)
        self.unused = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift + self.constant  # type: ignore[operator]


def test_the_weights_and_memory_of_programs_are_those_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    shared = nn.Linear(6, 6)
    network = nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(6, 3), Constants()).eval()
    one = ExportContext(
        Ticket(prune(network, 1.0), network.state_dict(), {}), network, network, torch.randn(2, 6), tmp_path
    )
    found = ARTEFACTS["exported"](one)
    assert found.weights == 36 + 18 + 16
    assert found.memory == 4 * (42 + 21 + 3 * 3 + 20)
    assert found.multiply_adds == 2 * 36 + 18

    def other(_: Path) -> nn.Module:
        program = read_exported(tmp_path / "compact.pt2")
        program.get_submodule("4").weight = nn.Parameter(torch.zeros(3, 60))  # type: ignore[assignment]
        return program

    monkeypatch.setattr("tombola.exports.torch_export.read_exported", other)
    found = ARTEFACTS["exported"](one)
    assert found.weights == 36 + 180 + 16
    assert found.memory == 4 * (42 + 183 + 3 * 3 + 20)


FRESH_PROCESS = """
import json, sys
import numpy, onnxruntime

x = numpy.load('x.npy')
session = onnxruntime.InferenceSession('compact.onnx', providers=['CPUExecutionProvider'])
numpy.save('onnx.npy', session.run(['output'], {'input': x})[0])
assert json.loads(session.get_modelmeta().custom_metadata_map['tombola']) == {'said': 1}
assert 'tombola' not in sys.modules and 'torch' not in sys.modules

import torch
from tombola.exports.runtime.network import SparseNetwork

numpy.save('sparse.npy', SparseNetwork.load('sparse.safetensors', 1)(torch.from_numpy(x)).numpy())
"""


def test_onnx_and_sparse_files_work_in_a_fresh_process(everything: Everything, tmp_path: Path) -> None:
    one, artefacts = everything
    x = digits_test()[0][:70].contiguous()
    np.save(tmp_path / "x.npy", x.numpy())
    for file in ("compact.onnx", "sparse.safetensors"):
        (tmp_path / file).write_bytes((one.folder / file).read_bytes())
    command = [sys.executable, "-W", "error", "-c", FRESH_PROCESS]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert (np.load(tmp_path / "sparse.npy") == artefacts["sparse"].predict(x).numpy()).all()
    with torch.inference_mode():
        torch.testing.assert_close(
            torch.from_numpy(np.load(tmp_path / "onnx.npy")), one.network(x), rtol=0, atol=1e-4
        )


def test_a_ticket_can_be_exported_without_trained_weights(tmp_path: Path) -> None:
    one = digits_context(digits_ticket(), tmp_path)
    whole, without = (ARTEFACTS["ticket"](replace(one, precision=p)) for p in ("fp32", "none"))
    assert (whole.name, without.name) == ("ticket, fp32", "ticket")
    assert whole.bytes - without.bytes > 4 * whole.weights
    assert (without.weights, without.predict) == (whole.weights, None)
    assert Ticket.load(tmp_path / "ticket.safetensors").trained is None
    with torch.inference_mode():
        assert torch.equal(whole.predict(one.example), one.network(one.example))


def test_vision_transformers_have_no_sparse_file(tmp_path: Path) -> None:
    one = digits_context(digits_ticket("vit", steps=1), tmp_path)
    with pytest.raises(InputError, match=r"tombola\.sparse"):
        ARTEFACTS["sparse"](one)
    assert list(tmp_path.iterdir()) == []
    whole = dense(one)
    assert whole.weights == one.ticket.mask.size
    patches, width = 4, 12  # of 8×8 pixels, 4×4 each
    each = 16 * width + 4 * width * width + 2 * 4 * width * width
    assert whole.multiply_adds == patches * each + width * 10


def test_a_mask_without_two_four_structure_has_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2:4"):
        ARTEFACTS["two-four"](digits_context(digits_ticket(), tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_two_four_files_have_half_of_the_weights(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 5))
    mask = prune(network, structure="2:4", leave_out=["2"])
    one = context_of(network, mask, tmp_path, torch.randn(2, 16))
    found = ARTEFACTS["two-four"](one)
    assert found.weights == 16 * 8 // 2 + 8 * 5 == mask.count
    assert found.timed == (found.device == "cuda")
    assert found.timed or "CUDA" in found.note
    with torch.inference_mode():
        torch.testing.assert_close(found.predict(one.example), network(one.example), rtol=0, atol=1e-2)
    mixed = {
        "0.weight": mask["0.weight"],
        "2.weight": torch.rand(5, 8, generator=torch.Generator().manual_seed(0)) < 0.7,
    }
    assert (
        ARTEFACTS["two-four"](context_of(network, Mask(mixed), tmp_path, one.example)).weights == 16 * 8 // 2 + 8 * 5
    )


def test_shared_layers_are_stored_once_where_they_can_be(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shared = nn.Linear(6, 6)
    network = nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(6, 3))
    one = context_of(network, prune(network, 0.5), tmp_path, torch.randn(2, 6))
    found = {
        kind: make(one)
        for kind, make in {"dense": dense, **ARTEFACTS}.items()
        if kind not in ("two-four", "csr", "onnx", "int8")
    }
    assert found["dense"].weights == 36 + 18
    assert found["dense"].multiply_adds == 2 * 36 + 18
    assert found["dense"].bytes < found["compact"].bytes
    with torch.inference_mode():
        for each in found.values():
            torch.testing.assert_close(each.predict(one.example), network(one.example), rtol=0, atol=1e-2)
