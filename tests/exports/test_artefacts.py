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

from tests.exports.shipping import digits_ticket
from tombola.exports import artefacts as module
from tombola.exports import measuring
from tombola.exports.artefacts import ARTEFACTS, FILES, Shipment, dense, dense_onnx, load_compact
from tombola.exports.csr import read_csr
from tombola.exports.measuring import Artefact, Figures, layers, measure
from tombola.exports.onnx_file import stored
from tombola.exports.torch_export import read_exported
from tombola.pruning.mask import Mask
from tombola.pruning.pruner import prune
from tombola.runs.sparse_state import spread
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError
from tombola.utils.files import write_tensors
from tombola.zoo.datasets import prepare
from tombola.zoo.datasets.description import Data
from tombola.zoo.models.resnet import Subsample

FP16 = 0.05
"""How far outputs of the ticket file may be off, whose weights are rounded."""
ROUNDING = 1e-4


def digits_test() -> tuple[Tensor, Tensor]:
    """The test set."""
    data = Data.model_validate(digits_ticket().provenance["run"]["data"])
    split = prepare(data)
    return split.test[torch.arange(len(split.test))]


def shipment(ticket: Ticket, folder: Path, **options: Any) -> Shipment:
    return Shipment.of(ticket, ticket.network(), digits_test()[0][:2], folder, **options)


def made(one: Shipment) -> dict[str, Artefact]:
    """All but 2:4, by kind."""
    kinds = {"dense": dense, "dense-onnx": dense_onnx} | {k: make for k, make in ARTEFACTS.items() if k != "two-four"}
    return {kind: make(one) for kind, make in kinds.items()}


Everything = tuple[Shipment, dict[str, Artefact]]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Everything:
    """All artefacts of a ticket with convolutions and linear layers."""
    one = shipment(digits_ticket("conv", density=0.1), tmp_path_factory.mktemp("conv"), about={"said": 1})
    before = copy.deepcopy((one.network.state_dict(), one.compact.state_dict()))
    artefacts = made(one)
    for state, was in zip((one.network.state_dict(), one.compact.state_dict()), before, strict=True):
        assert all(torch.equal(state[name], was[name]) for name in was)  # making them changes nothing
    return one, artefacts


def figures(artefacts: dict[str, Artefact], monkeypatch: pytest.MonkeyPatch) -> dict[str, Figures]:
    monkeypatch.setattr(measuring, "TURN", 0.0)
    return dict(zip(artefacts, measure(list(artefacts.values()), *digits_test(), turns=1), strict=True))


def undecided(network: nn.Module, difference: float) -> float:
    """The share of test examples whose answer may be another where outputs are off by so much."""
    with torch.inference_mode():
        first, second = network(digits_test()[0]).topk(2).values.unbind(1)
    return (first - second <= 2 * difference).double().mean().item()


def test_all_are_as_accurate_as_the_dense_side(everything: Everything, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = figures(everything[1], monkeypatch)
    accuracy = measured["dense"].accuracy
    assert accuracy is not None
    assert accuracy > 0.3  # it was trained
    for kind, found in measured.items():
        if kind == "csr":
            assert (found.accuracy, found.difference) == (None, None)
        else:
            assert found.difference is not None
            assert found.difference < (FP16 if kind == "ticket" else ROUNDING), kind
            unsure = undecided(everything[0].network, found.difference) if kind == "ticket" else 0.0
            assert abs(found.accuracy - accuracy) <= unsure, kind
            assert (found.latency is None) == (kind == "ticket")
            assert found.not_finite == 0
    assert measured["ticket"].difference > 0  # half precision can be seen: it is the file that was read


def test_sizes_are_those_of_the_files(everything: Everything) -> None:
    one, artefacts = everything
    assert all(each.bytes == (one.folder / each.file).stat().st_size for each in artefacts.values())
    assert len({each.file for each in artefacts.values()}) == len({each.name for each in artefacts.values()}) == 8
    assert sorted(path.name for path in one.folder.iterdir()) == sorted(each.file for each in artefacts.values())
    assert FILES.keys() == ARTEFACTS.keys()
    assert {kind: artefacts[kind].file for kind in FILES if kind in artefacts}.items() <= FILES.items()


def test_weights_are_counted_exactly(everything: Everything) -> None:
    one, artefacts = everything
    numel = sum(layer.weight.numel() for layer in measuring.layers(one.network).values())
    smaller = sum(layer.weight.numel() for layer in measuring.layers(one.compact).values())
    count = one.ticket.mask.count
    assert one.ticket.mask.size == numel
    assert count < smaller < numel
    assert artefacts["dense"].weights == artefacts["dense-onnx"].weights == numel
    assert artefacts["compact"].weights == artefacts["exported"].weights == artefacts["onnx"].weights == smaller
    assert artefacts["ticket"].weights == artefacts["csr"].weights == count


def test_memory_is_that_of_what_is_loaded(everything: Everything) -> None:
    one, artefacts = everything
    assert artefacts["dense"].memory == 4 * sum(p.numel() for p in one.network.parameters())
    assert artefacts["compact"].memory == 4 * sum(p.numel() for p in one.compact.parameters())
    assert artefacts["sparse"].memory < artefacts["compact"].memory < artefacts["dense"].memory
    for kind in ("dense-onnx", "onnx"):
        assert artefacts[kind].memory == stored(one.folder / artefacts[kind].file)
    assert artefacts["exported"].memory == artefacts["compact"].memory
    with np.load(one.folder / "csr.npz") as arrays:
        assert artefacts["csr"].memory == sum(arrays[name].nbytes for name in arrays)
    assert artefacts["ticket"].memory is None


def test_working_space_is_that_of_the_sparse_network(everything: Everything) -> None:
    _, artefacts = everything
    sparse = artefacts["sparse"]
    assert sparse.answers is not None
    assert sparse.working == sparse.answers.working(256) > 0  # type: ignore[attr-defined]
    assert all(each.working is None for kind, each in artefacts.items() if kind != "sparse")


def work(network: nn.Module, image: int) -> int:
    """Multiply-adds by formula, of one image of so many pixels a side whose 3×3 convolutions are padded."""
    done = 0
    for layer in measuring.layers(network).values():
        if isinstance(layer, nn.Conv2d):
            done += image * image * 9 * layer.in_channels * layer.out_channels
        else:
            done += layer.in_features * layer.out_features
    return done


def test_multiply_adds_are_those_of_the_formula(everything: Everything) -> None:
    one, artefacts = everything
    for kind in ("dense", "dense-onnx"):
        assert artefacts[kind].multiply_adds == work(one.network, 8)
    for kind in ("compact", "exported", "onnx"):
        assert artefacts[kind].multiply_adds == work(one.compact, 8)
    assert 0 < artefacts["sparse"].multiply_adds <= work(one.compact, 8)
    assert artefacts["ticket"].multiply_adds is artefacts["csr"].multiply_adds is None


def test_multiply_adds_of_an_mlp(tmp_path: Path) -> None:
    one = shipment(digits_ticket("mlp", density=0.1), tmp_path)
    assert dense(one).multiply_adds == 64 * 50 + 50 * 30 + 30 * 10
    first, second = (one.compact.get_submodule(name).out_features for name in ("fc1", "fc2"))
    found = ARTEFACTS["compact"](one)
    assert found.multiply_adds == found.weights == 64 * first + first * second + second * 10
    assert found.weights < 5000


def test_the_sparse_runtime_does_a_product_for_each_weight_left(tmp_path: Path) -> None:
    ticket = digits_ticket(density=0.05)
    one = shipment(ticket, tmp_path)
    left = sum(int(layer.weight.count_nonzero()) for layer in measuring.layers(one.compact).values())
    found = ARTEFACTS["sparse"](one)
    assert found.weights == found.multiply_adds
    assert left <= found.weights <= work(one.compact, 8)  # tiny layers may be faster dense


def test_what_is_measured_was_read_from_the_file(everything: Everything) -> None:
    one, artefacts = everything
    for kind in ("dense", "compact", "exported", "sparse", "ticket"):
        answers = artefacts[kind].answers
        assert answers is not one.network
        assert answers is not one.compact
    for name, matrix in read_csr(one.folder / "csr.npz").items():
        weight = one.network.get_parameter(f"{name}.weight").detach().flatten(1)
        assert (matrix.toarray() == weight.numpy()).all()
    loaded = load_compact(one.folder / "compact.safetensors", one.network)
    assert not loaded.training
    with torch.inference_mode():
        x = digits_test()[0]
        assert torch.equal(loaded(x), one.compact(x))


@pytest.mark.parametrize("kind", ["dense", "compact"])
def test_answers_are_those_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    one, write = shipment(digits_ticket(), tmp_path), module.write_tensors

    def wrong(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        write(path, {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}, about)

    monkeypatch.setattr(module, "write_tensors", wrong)
    answers = {"dense": dense, **ARTEFACTS}[kind](one).answers
    assert answers is not None
    assert not answers(one.example).any()
    assert one.network(one.example).any()


class Constants(nn.Module):
    """Has numbers of all kinds, and a layer that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.register_buffer("shift", torch.zeros(3), persistent=False)
        self.constant = torch.arange(3.0)
        self.unused = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift + self.constant  # type: ignore[operator]


def test_programs_are_counted_as_they_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    shared = nn.Linear(6, 6)
    network = nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(6, 3), Constants()).eval()
    one = Shipment(
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


def test_onnx_memory_is_what_the_file_holds(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3), Constants()).eval()
    one = Shipment(
        Ticket(prune(network, 1.0), network.state_dict(), {}), network, network, torch.randn(2, 6), tmp_path
    )
    for found in (dense_onnx(one), ARTEFACTS["onnx"](one)):
        assert found.memory == stored(tmp_path / found.file)
        assert found.memory < measuring.memory(network)  # it has no unused layer


def test_a_compact_file_that_nobody_could_load_is_not_written(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(2, 4, 3), Subsample(6), nn.Conv2d(6, 2, 1), nn.Flatten())
    mask = {
        "0.weight": torch.ones(4, 2, 3, 3, dtype=torch.bool),
        "2.weight": torch.zeros(2, 6, 1, 1, dtype=torch.bool),
    }
    mask["2.weight"][:, :2] = True
    one = own(network, Mask(mask), tmp_path, torch.randn(2, 2, 5, 5))
    with pytest.raises(InputError, match="a state does not say how many channels 1 gives in a smaller network"):
        ARTEFACTS["compact"](one)
    assert list(tmp_path.iterdir()) == []
    assert ARTEFACTS["exported"](one).weights < dense(one).weights


def in_a_fresh_process(code: str, folder: Path) -> None:
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_the_sparse_file_gives_the_same_bits_in_a_fresh_process(everything: Everything) -> None:
    one, artefacts = everything
    x = digits_test()[0][:70].contiguous()
    np.save(one.folder / "x.npy", x.numpy())
    in_a_fresh_process(
        "import numpy, torch\n"
        "from tombola.exports.runtime.network import SparseNetwork\n"
        "network = SparseNetwork.load('sparse.safetensors', 1)\n"
        "numpy.save('y.npy', network(torch.from_numpy(numpy.load('x.npy'))).numpy())\n",
        one.folder,
    )
    there = np.load(one.folder / "y.npy")
    assert (there == artefacts["sparse"].answers(x).numpy()).all()
    (one.folder / "x.npy").unlink()
    (one.folder / "y.npy").unlink()


def test_onnx_files_answer_without_tombola(everything: Everything) -> None:
    one, _ = everything
    x = digits_test()[0][:5].contiguous()
    np.save(one.folder / "x.npy", x.numpy())
    in_a_fresh_process(
        "import json, sys\n"
        "import numpy, onnxruntime\n"
        "session = onnxruntime.InferenceSession('compact.onnx', providers=['CPUExecutionProvider'])\n"
        "numpy.save('y.npy', session.run(['output'], {'input': numpy.load('x.npy')})[0])\n"
        "assert json.loads(session.get_modelmeta().custom_metadata_map['tombola']) == {'said': 1}\n"
        "assert 'tombola' not in sys.modules and 'torch' not in sys.modules\n",
        one.folder,
    )
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(np.load(one.folder / "y.npy")), one.network(x), rtol=0, atol=1e-4)
    (one.folder / "x.npy").unlink()
    (one.folder / "y.npy").unlink()


def test_a_ticket_can_be_shipped_without_its_trained_weights(tmp_path: Path) -> None:
    one = shipment(digits_ticket(), tmp_path)
    whole, without = (ARTEFACTS["ticket"](replace(one, precision=p)) for p in ("fp32", "none"))
    assert (whole.name, without.name) == ("ticket, fp32", "ticket")
    assert whole.bytes - without.bytes > 4 * whole.weights
    assert (without.weights, without.answers) == (whole.weights, None)
    assert Ticket.load(tmp_path / "ticket.safetensors").trained is None
    assert whole.answers is not None
    with torch.inference_mode():
        assert torch.equal(whole.answers(one.example), one.network(one.example))


def test_weights_too_large_for_fp16_are_said(tmp_path: Path) -> None:
    ticket = digits_ticket()
    assert ticket.trained is not None
    trained = {**ticket.trained, "output.bias": torch.full((10,), 1e6)}
    large = Ticket(ticket.mask, ticket.start, ticket.provenance, trained, drawn=ticket.drawn)
    one = shipment(large, tmp_path)
    with pytest.raises(InputError, match=r'output\.bias has numbers that fp16 cannot hold; should be "bf16"'):
        ARTEFACTS["ticket"](one)
    assert ARTEFACTS["ticket"](replace(one, precision="bf16")).weights == ticket.mask.count


def test_vision_transformers_have_no_sparse_file(tmp_path: Path) -> None:
    one = shipment(digits_ticket("vit", steps=1), tmp_path)
    with pytest.raises(
        InputError, match=r"no program for this network: .+; tombola\.sparse makes single layers sparse"
    ):
        ARTEFACTS["sparse"](one)
    assert list(tmp_path.iterdir()) == []
    whole = dense(one)
    assert whole.weights == one.ticket.mask.size
    patches, width = 4, 12  # of 8×8 pixels, 4×4 each
    each = 16 * width + 4 * width * width + 2 * 4 * width * width
    assert whole.multiply_adds == patches * each + width * 10


def test_a_mask_without_that_structure_has_no_two_four_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no layer keeps two of every four weights"):
        ARTEFACTS["two-four"](shipment(digits_ticket(), tmp_path))
    assert list(tmp_path.iterdir()) == []


def own(network: nn.Module, mask: Mask, folder: Path, example: Tensor) -> Shipment:
    """A shipment of a network as it is."""
    mask.apply_(network)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    ticket = Ticket(mask, state, {}, state)
    return Shipment.of(ticket, network.eval(), example, folder)


def test_two_four_files_hold_half_of_those_layers(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 5))
    mask = prune(network, structure="2:4", leave_out=["2"])
    one = own(network, mask, tmp_path, torch.randn(2, 16))
    found = ARTEFACTS["two-four"](one)
    assert found.weights == 16 * 8 // 2 + 8 * 5 == mask.count
    assert not found.timed
    assert found.answers is not None
    with torch.inference_mode():
        torch.testing.assert_close(found.answers(one.example), network(one.example), rtol=0, atol=1e-2)
    mixed = {
        "0.weight": mask["0.weight"],
        "2.weight": torch.rand(5, 8, generator=torch.Generator().manual_seed(0)) < 0.7,
    }
    assert ARTEFACTS["two-four"](own(network, Mask(mixed), tmp_path, one.example)).weights == 16 * 8 // 2 + 8 * 5


def test_shared_layers_are_stored_once_where_they_can_be(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shared = nn.Linear(6, 6)
    network = nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(6, 3))
    one = own(network, prune(network, 0.5), tmp_path, torch.randn(2, 6))
    found = {
        kind: make(one) for kind, make in {"dense": dense, **ARTEFACTS}.items() if kind not in ("two-four", "csr")
    }
    assert found["dense"].weights == 36 + 18
    assert found["dense"].multiply_adds == 2 * 36 + 18
    assert found["dense"].bytes < found["compact"].bytes
    with torch.inference_mode():
        for each in found.values():
            assert each.answers is not None
            torch.testing.assert_close(each.answers(one.example), network(one.example), rtol=0, atol=1e-2)


def test_compact_files_that_are_none(tmp_path: Path) -> None:
    one = shipment(digits_ticket(), tmp_path)
    ARTEFACTS["compact"](one)
    path = tmp_path / "compact.safetensors"
    with pytest.raises(InputError, match="another architecture"):
        load_compact(path, nn.Linear(3, 3))
    path.write_bytes(path.read_bytes()[:-3])
    for file, said in ((path, "damaged"), (tmp_path / "none", "there is no file"), (tmp_path, "there is no file")):
        with pytest.raises(InputError, match=said):
            load_compact(file, one.network)


def test_compact_files_whose_layers_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    path, network = tmp_path / "compact.safetensors", nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    example = torch.zeros(2, 4)

    def written(first: int, second: int, outputs: int) -> None:
        made = nn.Sequential(nn.Linear(4, first), nn.ReLU(), nn.Linear(second, outputs))
        write_tensors(path, made.state_dict(), {})

    written(2, 2, 2)
    assert load_compact(path, network, example)(example).shape == (2, 2)
    written(2, 1, 2)
    load_compact(path, network)  # nobody can tell without an example
    with pytest.raises(InputError, match=r"compact\.safetensors: layers do not fit each other: ") as refused:
        load_compact(path, network, example)
    assert "\n" not in str(refused.value)
    written(2, 2, 1)
    with pytest.raises(InputError, match=r"outputs are \(2, 1\), and \(2, 2\) of the network"):
        load_compact(path, network, example)
    with pytest.raises(
        InputError, match=r"the last layer 2 gives 1 outputs, and 2 in the network; if the outputs are"
    ):
        load_compact(path, network)
    with pytest.raises(InputError, match=r"^this network does not take an example of \(2, 5\)"):
        load_compact(path, network, torch.zeros(2, 5))
    assert network.training


def test_a_network_whose_last_layer_is_not_its_output_is_made_compact(tmp_path: Path) -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.output, self.hidden = nn.Linear(6, 2), nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.output(self.hidden(x).relu())  # type: ignore[no-any-return]

    network = Backwards()
    mask = {
        f"{name}.weight": torch.ones_like(layer.weight, dtype=torch.bool) for name, layer in layers(network).items()
    }
    mask["output.weight"][:, :3] = False
    one = own(network, Mask(mask), tmp_path, torch.randn(2, 4))
    assert ARTEFACTS["compact"](one).weights == 3 * 4 + 2 * 3
    with pytest.raises(InputError, match="the last layer hidden gives 3 outputs, and 6 in the network"):
        load_compact(tmp_path / "compact.safetensors", one.network)


def test_half_precision_is_all_that_a_ticket_file_loses(tmp_path: Path) -> None:
    one = shipment(digits_ticket(), tmp_path)
    ARTEFACTS["ticket"](one)
    read, trained = Ticket.load(tmp_path / "ticket.safetensors").trained, one.ticket.trained
    assert read is not None
    assert trained is not None
    for name, tensor in read.items():
        assert torch.equal(tensor, trained[name].half().float())
        if name in one.ticket.mask:
            kept = one.ticket.mask[name]
            assert torch.equal(tensor, spread(tensor[kept], kept))
