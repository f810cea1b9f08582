from __future__ import annotations

import importlib
import json
import logging
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import tiny
from tests.exports.shipping import NETWORKS, digits_ticket
from tests.tickets.test_ticket import write_format_1
from tombola._find_ticket import find_ticket
from tombola.experiments.experiment import Experiment
from tombola.exports import export as module
from tombola.exports import measuring
from tombola.exports.artefacts import ARTEFACTS, FILES, Shipment
from tombola.exports.export import MEASURED, Examples, Export, Origin, export, read_export
from tombola.exports.measuring import Artefact
from tombola.pruning.hold import held, hold
from tombola.pruning.pruner import prune
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError
from tombola.utils.files import read_tensors
from tombola.zoo.datasets import prepare
from tombola.zoo.models import build, describe

LIGHT = ("ticket", "compact", "csr")
"""Kinds that are made in no time."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One turn of single calls, and ONNX only where a test asks for it."""
    monkeypatch.setattr(measuring, "TURN", 0.0)

    def without(shipment: Shipment) -> Artefact:  # noqa: ARG001
        raise InputError("not in this test")

    monkeypatch.setattr(module, "dense_onnx", without)


def names(exported: Export) -> list[str]:
    return [each.name for each in exported.figures]


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))


def blobs() -> tuple[Tensor, Tensor]:
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()


def own_ticket(network: nn.Module, density: float = 0.5) -> Ticket:
    """Of a network as it is, with no word of where it came from."""
    mask = prune(network, density)
    mask.apply_(network)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    return Ticket(mask, state, {}, state)


def test_a_ticket_is_exported_whole(tmp_path: Path) -> None:
    ticket = digits_ticket()
    exported = export(ticket, tmp_path / "new" / "folder", turns=1)
    assert names(exported) == [
        "dense PyTorch", "ticket, fp16", "compact PyTorch", "compact exported", "compact ONNX", "sparse", "CSR",
    ]  # fmt: skip
    files = [each.file for each in exported.figures if each.file]
    assert sorted(path.name for path in exported.folder.iterdir()) == sorted([*files, MEASURED])
    for each in exported.figures[1:]:
        assert each.bytes == (exported.folder / each.file).stat().st_size
    assert exported.figures[0].file == ""
    assert exported.left_out["dense ONNX"] == "not in this test"
    assert exported.left_out["two-four"].startswith("no layer keeps two of every four weights")
    about = exported.about
    assert about.ticket == Origin(ticket.mask.count, 5000, 1, 0, ticket.provenance["key"])
    assert (about.data, about.examples, about.threads) == ("the test set of digits", 600, 1)
    assert about.inputs == "float32 (N, 8, 8), numbers such as from 0 to 1"
    assert about.versions["torch"] == torch.__version__
    accuracies = {each.accuracy for each in exported.figures if "fp16" not in each.name and each.name != "CSR"}
    assert len(accuracies) == 1
    assert min(accuracies) > 0.5
    assert read_export(exported.folder) == exported


def test_files_are_the_same_bytes_again_whatever_was_there(tmp_path: Path) -> None:
    kinds = [*LIGHT, "csr"]
    first = export(digits_ticket(), tmp_path, kinds=kinds, turns=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != MEASURED}
    for name in before:
        (tmp_path / name).write_bytes(b"something else")
    (tmp_path / "dense.safetensors").write_text("mine")
    again = export(digits_ticket(), tmp_path, kinds=kinds, turns=1)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert (tmp_path / "dense.safetensors").read_text() == "mine"
    assert names(again) == names(first) == ["dense PyTorch", "ticket, fp16", "compact PyTorch", "CSR"]


def test_files_of_an_earlier_export_go_and_no_others(tmp_path: Path) -> None:
    for name in (*FILES.values(), MEASURED, "mine.onnx", "dense.safetensors"):
        (tmp_path / name).write_text("last week's")
    exported = export(digits_ticket(), tmp_path, kinds=["csr"], turns=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["csr.npz", "dense.safetensors", MEASURED, "mine.onnx"]
    assert exported.figures[-1].bytes == (tmp_path / "csr.npz").stat().st_size


def test_a_ticket_that_no_export_left_stays(tmp_path: Path) -> None:
    digits_ticket().save(tmp_path / "ticket.safetensors", trained="fp32")
    before = (tmp_path / "ticket.safetensors").read_bytes()
    export(digits_ticket(), tmp_path, kinds=["csr"], turns=1)
    assert (tmp_path / "ticket.safetensors").read_bytes() == before


def test_nothing_goes_where_nothing_comes(tmp_path: Path) -> None:
    for name in (*FILES.values(), MEASURED):
        (tmp_path / name).write_text("last week's")
    with pytest.raises(InputError, match="does not take an example"):
        export(own_ticket(small()), tmp_path, network=small(), examples=Examples(torch.zeros(2, 5)))
    assert {path.name for path in tmp_path.iterdir()} == {*FILES.values(), MEASURED}


@pytest.mark.parametrize("name", ["threads", "turns"])
@pytest.mark.parametrize("count", [0, -1, 1.0, True, "2", None])
def test_counts_that_are_none_are_refused_before_anything_is_written(tmp_path: Path, name: str, count: Any) -> None:
    with pytest.raises(InputError, match=rf"^{name}: should be a whole number from 1, not {count!r}$"):
        export(digits_ticket(), tmp_path / "new", kinds=LIGHT, **{name: count})
    assert not (tmp_path / "new").exists()


def test_files_say_what_they_are(tmp_path: Path) -> None:
    ticket = digits_ticket()
    key = ticket.provenance["key"]
    export(ticket, tmp_path, kinds=["compact", "sparse"], turns=1)
    said = {
        "inputs": "float32 (N, 8, 8), numbers such as from 0 to 1",
        "ticket": {"weights": ticket.mask.count, "weights_total": 5000, "level": 1, "replicate": 0, "key": key},
    }
    assert read_tensors(tmp_path / "compact.safetensors")[1] == said
    assert read_tensors(tmp_path / "sparse.safetensors")[1]["about"] == said


def test_what_is_left_out_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(measuring, "TURN", 0.0)
    missing = InputError("this needs onnx: pip install 'tombola[onnx]'")

    def needed(*_: str) -> None:
        raise missing

    monkeypatch.setattr("tombola.exports.onnx_file.require", needed)
    exported = export(digits_ticket("vit", steps=1), tmp_path, kinds=[*LIGHT, "onnx", "sparse"], turns=1)
    assert names(exported) == ["dense PyTorch", "ticket, fp16", "compact PyTorch", "CSR"]
    assert exported.left_out["dense ONNX"] == exported.left_out["onnx"] == str(missing)
    assert exported.left_out["sparse"].startswith("the sparse runtime has no program for this network: ")
    assert not (tmp_path / "sparse.safetensors").exists()
    assert read_export(tmp_path).left_out == exported.left_out


def test_an_error_of_ours_comes_through_and_what_is_there_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(digits_ticket(), tmp_path, kinds=["csr"], turns=1)

    def interrupted(shipment: Shipment) -> Artefact:
        (shipment.folder / "begun").touch()
        raise error

    monkeypatch.setitem(ARTEFACTS, "onnx", interrupted)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for error in (KeyboardInterrupt(), RuntimeError("a bug")):
        with pytest.raises(type(error)):
            export(digits_ticket(), tmp_path, kinds=["ticket", "onnx", "compact"], turns=1)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_must_be_made_and_cannot_is_an_error_and_nothing_changes(tmp_path: Path) -> None:
    export(digits_ticket(), tmp_path, kinds=["csr"], turns=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"^no two-four can be made, so nothing was written: no layer keeps two of"):
        export(digits_ticket(), tmp_path, kinds=["ticket", "two-four"], must=True, turns=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    export(digits_ticket(), tmp_path, kinds=["ticket"], must=True, turns=1)  # what is only compared with need not be
    assert {path.name for path in tmp_path.iterdir()} == {"ticket.safetensors", MEASURED}


def test_threads_are_at_most_four_for_each_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cores", lambda: 1)
    with pytest.raises(
        InputError, match=r"^threads: should be at most 4, four for each core of this machine, not 5$"
    ):
        export(digits_ticket(), tmp_path / "new", kinds=LIGHT, threads=5)
    assert not (tmp_path / "new").exists()
    assert export(digits_ticket(), tmp_path, kinds=["csr"], threads=4, turns=1).about.threads == 4


def test_what_a_ticket_says_of_itself_is_noted_only_where_it_can_be_read_again(tmp_path: Path) -> None:
    ticket = digits_ticket()
    said = ticket.provenance | {"level": 2**63, "replicate": -1, "key": "\ud800"}
    strange = Ticket(ticket.mask, ticket.start, said, ticket.trained, drawn=ticket.drawn)
    exported = export(strange, tmp_path, kinds=["csr"], turns=1)
    assert exported.about.ticket == Origin(ticket.mask.count, 5000)
    assert read_export(tmp_path) == exported


def test_kinds_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='unknown artefact "spare": did you mean "sparse"'):
        export(digits_ticket(), tmp_path / "new", kinds=["spare"])
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        with pytest.raises(InputError, match=f"the folder {folder} cannot be written: "):
            export(digits_ticket(), folder, kinds=LIGHT, turns=1)


def test_tickets_without_trained_weights(tmp_path: Path) -> None:
    ticket = digits_ticket()
    write_format_1(ticket, tmp_path / "old")
    ticket.save(tmp_path / "without", trained="none")
    for name in ("old", "without"):
        with pytest.raises(
            InputError, match=r"no trained weights to export: .* the same `tombola run` again writes it"
        ):
            export(Ticket.load(tmp_path / name), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_only_trusted_code_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Experiment(tiny(model=NETWORKS["mlp"])).dense(0)
    described = describe("tests.exports.test_export:digits_network", {}, (8, 8), 10)
    start = run.start.model_copy(update={"network": described})
    network = build(start)
    ticket = own_ticket(network)
    about = {"run": run.description}
    ticket = Ticket(ticket.mask, ticket.start, about, ticket.trained, drawn=start)
    with monkeypatch.context() as patched:
        patched.setattr(importlib, "import_module", lambda name: pytest.fail(f"imports {name}"))
        with pytest.raises(InputError, match=r"test_export:digits_network\" is code from outside .* say --trust"):
            export(ticket, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    state = torch.random.get_rng_state()
    exported = export(ticket, tmp_path / "new", kinds=LIGHT, trust=True, turns=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert exported.figures[0].weights == 64 * 10
    given = export(ticket, tmp_path / "given", kinds=LIGHT, network=digits_network(), turns=1)
    assert given.figures[0].accuracy == exported.figures[0].accuracy is not None


def digits_network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_data_that_is_not_there_is_made_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ticket = digits_ticket()
    gone = json.loads(json.dumps(ticket.provenance))
    gone["run"]["data"]["name"], gone["recipe"]["data"]["name"] = "npz", "gone.npz"
    changed = json.loads(json.dumps(ticket.provenance))
    changed["run"]["data"]["digest"] = "0" * 32
    for provenance, why in (
        (gone, "there is no data file gone.npz"),
        (changed, 'data set "digits" has changed'),
        ({}, "the ticket does not say what data it was trained on"),
        ({"run": {"data": 5}, "level": "four", "key": 5}, "the ticket does not say what data it was trained on"),
    ):
        caplog.clear()
        one = Ticket(ticket.mask, ticket.start, provenance, ticket.trained, drawn=ticket.drawn)
        with caplog.at_level(logging.WARNING, "tombola"):
            exported = export(one, tmp_path, kinds=LIGHT, turns=1)
        (record,) = (r for r in caplog.records if r.name == "tombola.exports.export")
        assert record.getMessage().startswith(f"tried on made-up numbers, so there are no accuracies: {why}")
        assert (exported.about.data, exported.about.examples) == ("made up", 256)
        assert all(each.accuracy is None for each in exported.figures)
        assert exported.figures[1].difference is not None
        assert exported.about.ticket.key == provenance.get("key") or exported.about.ticket.key is None
        assert read_export(tmp_path) == exported


def test_arrays_are_found_where_the_recipe_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    arrays = {f"x_{part}": rng.random((size, 5), dtype=np.float32) for part, size in (("train", 40), ("test", 7))}
    labels = {f"y_{part}": np.arange(size) % 2 for part, size in (("train", 40), ("test", 7))}
    np.savez("mine.npz", **arrays, **labels)
    recipe = tiny(
        data={"name": "mine.npz", "validation": 10}, model={"name": "mlp", "widths": [4]}, training__batch_size=10
    )
    run = Experiment(recipe).dense(0)
    network = build(run.start)
    about = {"recipe": recipe.resolved(), "run": run.description}
    assert about["run"]["data"]["name"] == "npz"  # type: ignore[index]
    ticket = Ticket(run.mask, network.state_dict(), about, network.state_dict(), drawn=run.start)
    exported = export(ticket, "out", kinds=LIGHT, turns=1)
    assert (exported.about.data, exported.about.examples) == ("the test set of mine.npz", 7)
    right = (network.eval()(torch.from_numpy(arrays["x_test"])).argmax(1).numpy() == labels["y_test"]).mean()
    assert exported.figures[0].accuracy == right


def test_a_ticket_of_ones_own_network(tmp_path: Path) -> None:
    x, y = blobs()

    def training(network: nn.Module) -> None:
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        for _ in range(10):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()

    def accuracy_of(network: nn.Module) -> float:
        return (network(x).argmax(1) == y).double().mean().item()

    found = find_ticket(small, training, levels=2, rate=0.5, evaluate=accuracy_of)
    found.ticket.save(tmp_path / "ticket")
    ticket = Ticket.load(tmp_path / "ticket")
    with pytest.raises(
        InputError, match=r"does not say what network it is of: .* tombola\.export\(ticket, folder, net"
    ):
        export(ticket, tmp_path / "none")
    with pytest.raises(
        InputError, match=r"does not say what its examples are: tombola\.export\(\.\.\., examples=\.\.\.\)"
    ):
        export(ticket, tmp_path / "none", network=small())
    assert not (tmp_path / "none").exists()
    mine = small()
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    labelled = export(ticket, tmp_path / "one", network=mine, examples=Examples(x, y, "blobs"), turns=1)
    assert mine.training  # only a copy was looked at
    assert all(torch.equal(tensor, before[name]) for name, tensor in mine.state_dict().items())
    accuracy = next(iter(ticket.provenance["figures"]["0"].values()))
    whole = [each for each in labelled.figures if each.name not in ("CSR", "ticket, fp16")]
    assert {each.accuracy for each in whole} == {accuracy}
    assert (labelled.about.data, labelled.about.inputs) == ("blobs", "float32 (N, 6)")
    assert labelled.figures[1].weights == ticket.mask.count
    plain = export(ticket, tmp_path / "two", network=mine, examples=Examples(x), turns=1)
    assert names(plain) == names(labelled)
    assert all(each.accuracy is None for each in plain.figures)
    assert [each.difference for each in plain.figures] == [each.difference for each in labelled.figures]


def test_a_held_network_in_double_precision_is_only_copied(tmp_path: Path) -> None:
    network = small().double()
    ticket = own_ticket(network)
    hold(network, ticket.mask)
    exported = export(ticket, tmp_path, network=network, examples=Examples(blobs()[0]), kinds=LIGHT, turns=1)
    assert exported.figures[0].memory == 4 * sum(p.numel() for p in network.parameters())
    assert next(network.parameters()).dtype == torch.float64
    assert held(network) == ticket.mask


def test_networks_of_another_architecture_and_examples_that_do_not_fit(tmp_path: Path) -> None:
    ticket, x = own_ticket(small()), blobs()[0]
    with pytest.raises(InputError, match="this ticket is for another architecture"):
        export(ticket, tmp_path / "new", network=nn.Linear(6, 2), examples=Examples(x))
    with pytest.raises(InputError, match=r"does not take an example of \(2, 5\)"):
        export(ticket, tmp_path / "new", network=small(), examples=Examples(x[:, :5]))

    class Pair(nn.Sequential):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x), x

    with pytest.raises(InputError, match="this one gives tuple"):
        export(ticket, tmp_path / "new", network=Pair(*small()), examples=Examples(x))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (torch.zeros(3, 2, dtype=torch.float64), None, r"x should be torch.float32 on the CPU, not torch.float64"),
        (torch.zeros(3, 2), torch.zeros(3), r"y should be torch.int64 on the CPU, not torch.float32"),
        (torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64), r"y should be \(3,\), one for each of x, not \(2,\)"),
        (torch.zeros(3, 2), torch.tensor([0, -1, 2]), r"y should be whole numbers from 0, not -1$"),
        (
            torch.zeros(3, 2, dtype=torch.complex64),
            None,
            r"x should be torch.float32 on the CPU, not torch.complex64",
        ),
        (torch.zeros(3), None, r"x should be \(N, \*inputs\), not \(3,\)"),
        (torch.zeros(0, 2), None, r"x should be \(N, \*inputs\), not \(0, 2\)"),
    ],
)
def test_examples_that_are_none(x: Tensor, y: Tensor | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Examples(x, y)


@pytest.mark.parametrize("outputs", ["regression", "maps", "one"])
def test_outputs_that_are_no_logits(tmp_path: Path, outputs: str) -> None:
    head = {"regression": nn.Flatten(0), "maps": nn.Unflatten(1, (2, 1)), "one": nn.Identity()}[outputs]
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2 if outputs == "maps" else 1), head)
    exported = export(
        own_ticket(network), tmp_path, network=network, examples=Examples(*blobs()), kinds=[*LIGHT, "sparse"], turns=1
    )
    assert all(each.accuracy is None for each in exported.figures)
    assert all(each.difference < 0.05 for each in exported.figures if each.not_finite is not None)  # type: ignore[operator]
    assert read_export(tmp_path) == exported


def test_one_example_is_enough(tmp_path: Path) -> None:
    split = prepare(Experiment(tiny()).dense(0).data)
    x, y = split.test[torch.arange(1)]
    exported = export(
        digits_ticket("resnet", steps=2),
        tmp_path,
        examples=Examples(x, y),
        kinds=[*LIGHT, "exported", "sparse"],
        turns=1,
    )
    assert exported.about.examples == 1
    assert {each.accuracy for each in exported.figures} <= {0.0, 1.0, None}
    assert len(exported.figures) == 6
    assert all(set(each.throughput) == {64, 256} for each in exported.figures if each.latency is not None)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_outputs_that_are_not_finite_are_counted_and_break_no_json(tmp_path: Path, value: float) -> None:
    network, (x, y) = small(), blobs()
    x = x.clone()
    x[3] = value
    exported = export(
        own_ticket(network), tmp_path, network=network, examples=Examples(x, y), kinds=[*LIGHT, "sparse"], turns=1
    )
    assert [each.not_finite for each in exported.figures if each.name != "CSR"] == [1] * (len(exported.figures) - 1)

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} in JSON")

    json.loads((tmp_path / MEASURED).read_text(), parse_constant=refuse)
    assert read_export(tmp_path) == exported


def test_weights_that_are_not_finite_are_no_agreement(tmp_path: Path) -> None:
    network = small()
    ticket = own_ticket(network)
    assert ticket.trained is not None
    ticket.trained["2.bias"][0] = math.nan
    exported = export(ticket, tmp_path, network=network, examples=Examples(*blobs()), turns=1)
    for kind, name in (("onnx", "ONNX Runtime"), ("exported", "torch.export")):
        assert exported.left_out[kind] == (
            "PyTorch's own outputs are not all finite for a batch of 1, so nobody can tell whether "
            f"{name} gives the same: nothing was written"
        )
    assert all(each.not_finite == 64 for each in exported.figures if each.name != "CSR")
    assert all(each.accuracy == 0 for each in exported.figures if each.name != "CSR")
    assert read_export(tmp_path) == exported


def test_rewound_tickets(tmp_path: Path) -> None:
    ticket = digits_ticket()
    run = Experiment(tiny(model=NETWORKS["mlp"])).dense(0)
    rewound = run.after(run.until(10), begin=10).masked(ticket.mask)
    about = ticket.provenance | {"run": rewound.description, "key": rewound.key}
    Ticket(ticket.mask, ticket.start, about, ticket.trained, drawn=rewound.start).save(tmp_path / "ticket")
    exported = export(Ticket.load(tmp_path / "ticket"), tmp_path / "shipped", kinds=LIGHT, turns=1)
    assert exported.about.ticket.key == rewound.key
    assert exported.figures[0].accuracy == export(ticket, tmp_path / "same", kinds=LIGHT, turns=1).figures[0].accuracy


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A folder of exports, and what its figures say."""
    return tmp_path, export(digits_ticket(), tmp_path, kinds=LIGHT, turns=1).to_json()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"artefacts": 5}, "damaged"),
        ({"artefacts": []}, "damaged: artefacts: List should have at least 1 item"),
        ({"artefacts": [{"name": "x"}]}, r"damaged: artefacts\.0\.file: Field required"),
        ({"left_out": ["x"]}, "damaged"),
        ({"examples": "many"}, "damaged: examples"),
        ({"ticket": {"weights": "few", "weights_total": 5}}, r"damaged: ticket\.weights"),
        ({"machine": None}, "damaged: machine"),
        ({"versions": math.nan}, "damaged: versions"),
        ({"examples": "600"}, "damaged: examples"),
        ({"examples": 600.0}, "damaged: examples"),
        ({"examples": 0}, "damaged: examples"),
        ({"threads": 0}, "damaged: threads"),
        ({"threads": True}, "damaged: threads"),
        ({"ticket": {"weights": 5, "weights_total": 0}}, r"damaged: ticket\.weights_total"),
        ({"ticket": {"weights": 2**63, "weights_total": 5}}, r"damaged: ticket\.weights"),
        ({"ticket": {"weights": 5, "weights_total": 10**400}}, "damaged"),
        ({"ticket": {"weights": 5, "weights_total": 5, "level": -1}}, r"damaged: ticket\.level"),
        ({"machine": "\ud800"}, "damaged: Invalid JSON"),
        ({"left_out": {"\udc00": "x"}}, "damaged: Invalid JSON"),
    ],
)
def test_damaged_figures_are_refused(damaged: tuple[Path, dict[str, Any]], change: dict[str, Any], said: str) -> None:
    folder, content = damaged
    (folder / MEASURED).write_text(json.dumps(content | change))
    with pytest.raises(InputError, match=said) as refused:
        read_export(folder)
    assert str(folder / MEASURED) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        {"latency": 0},
        {"throughput": {"64": 0}},
        {"throughput": {"0": 1.0}},
        {"accuracy": 2},
        {"accuracy": math.nan},
        {"latency": -1},
        {"latency": "0.5"},
        {"latency": 10**400},
        {"bytes": -1},
        {"bytes": 2**63},
        {"memory": 2.0},
    ],
)
def test_impossible_figures_are_refused(damaged: tuple[Path, dict[str, Any]], change: dict[str, Any]) -> None:
    folder, content = damaged
    content["artefacts"][0] |= change
    (folder / MEASURED).write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"damaged: artefacts\.0\.{next(iter(change))}"):
        read_export(folder)


@pytest.mark.parametrize("text", ["", "[]", "5", "{}", "{", "[" * 100_000, "\udcff"])
def test_what_are_no_figures_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MEASURED).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match="damaged"):
        read_export(tmp_path)


def test_figures_are_json_values(damaged: tuple[Path, dict[str, Any]]) -> None:
    folder, content = damaged
    read = read_export(folder)
    assert read.to_json() == content
    assert replace(read, figures=[]).to_json()["artefacts"] == []
    assert json.loads((folder / MEASURED).read_text())["artefacts"][0]["throughput"].keys() == {"64", "256"}
    assert asdict(read.about.ticket)["weights"] == digits_ticket().mask.count
