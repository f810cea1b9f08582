from __future__ import annotations

import importlib
import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.digits_tickets import NETWORKS, QUICK_KINDS, digits_network, digits_test, digits_ticket, ticket_of
from tests.support.recipes import tiny
from tests.support.tickets import write_version_1
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.exports.examples import Examples, read_examples
from tombola.exports.export import export
from tombola.exports.export_result import FIGURES_FILE, read_export
from tombola.pruning.hold import held, hold
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError
from tombola.zoo.models import build, describe

KINDS = (*QUICK_KINDS, "sparse")

pytestmark = pytest.mark.usefixtures("quick_export")


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))


def blobs() -> tuple[Tensor, Tensor]:
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()


def test_tickets_without_trained_weights_are_an_error(tmp_path: Path) -> None:
    ticket = digits_ticket()
    write_version_1(ticket, tmp_path / "old")
    ticket.save(tmp_path / "without", trained="none")
    for name in ("old", "without"):
        with pytest.raises(InputError, match=r"no trained weights.*tombola run"):
            export(Ticket.load(tmp_path / name), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_only_trusted_code_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RecipeExperiment(tiny(model=NETWORKS["mlp"])).dense(0)
    described = describe("tests.support.digits_tickets:digits_network", {}, (8, 8), 10)
    start = run.start.model_copy(update={"network": described})
    network = build(start)
    ticket = ticket_of(network)
    about = {"run": run.description}
    ticket = Ticket(ticket.mask, ticket.start, about, ticket.trained, drawn=start)
    with monkeypatch.context() as patched:
        patched.setattr(importlib, "import_module", lambda name: pytest.fail(f"imports {name}"))
        with pytest.raises(InputError, match=r"digits_tickets:digits_network.*--trust"):
            export(ticket, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    state = torch.random.get_rng_state()
    exported = export(ticket, tmp_path / "new", kinds=QUICK_KINDS, trust=True, turns=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert exported.figures[0].weights == 64 * 10
    given = export(ticket, tmp_path / "given", kinds=QUICK_KINDS, network=digits_network(), turns=1)
    assert given.figures[0].accuracy == exported.figures[0].accuracy is not None


def test_random_examples_replace_missing_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ticket = digits_ticket()
    gone = json.loads(json.dumps(ticket.provenance))
    gone["run"]["data"]["name"], gone["recipe"]["data"]["name"] = "npz", "gone.npz"
    changed = json.loads(json.dumps(ticket.provenance))
    changed["run"]["data"]["digest"] = "0" * 32
    for provenance, why in (
        (gone, "gone.npz"),
        (changed, 'dataset "digits" has changed'),
        ({}, "data it was trained on"),
        ({"run": {"data": 5}, "level": "four", "key": 5}, "data it was trained on"),
    ):
        caplog.clear()
        one = Ticket(ticket.mask, ticket.start, provenance, ticket.trained, drawn=ticket.drawn)
        with caplog.at_level(logging.WARNING, "tombola"):
            exported = export(one, tmp_path, kinds=QUICK_KINDS, turns=1)
        (record,) = (r for r in caplog.records if r.name == "tombola.exports.ticket_examples")
        assert why in record.getMessage()
        assert (exported.about.data, exported.about.examples) == ("made up", 256)
        assert all(each.accuracy is None for each in exported.figures)
        assert exported.figures[1].difference is not None
        assert exported.about.ticket.key == provenance.get("key") or exported.about.ticket.key is None
        assert read_export(tmp_path) == exported


def test_the_path_of_arrays_is_that_of_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    arrays = {f"x_{part}": rng.random((size, 5), dtype=np.float32) for part, size in (("train", 40), ("test", 7))}
    labels = {f"y_{part}": np.arange(size) % 2 for part, size in (("train", 40), ("test", 7))}
    np.savez("mine.npz", **arrays, **labels)
    recipe = tiny(
        data={"name": "mine.npz", "validation": 10}, model={"name": "mlp", "widths": [4]}, training__batch_size=10
    )
    run = RecipeExperiment(recipe).dense(0)
    network = build(run.start)
    about = {"recipe": recipe.resolved(), "run": run.description}
    assert about["run"]["data"]["name"] == "npz"  # type: ignore[index]
    ticket = Ticket(run.mask, network.state_dict(), about, network.state_dict(), drawn=run.start)
    exported = export(ticket, "out", kinds=QUICK_KINDS, turns=1)
    assert (exported.about.data, exported.about.examples) == ("the test set of mine.npz", 7)
    right = (network.eval()(torch.from_numpy(arrays["x_test"])).argmax(1).numpy() == labels["y_test"]).mean()
    assert exported.figures[0].accuracy == right


def test_a_ticket_of_a_users_network(tmp_path: Path) -> None:
    (x, y), network = blobs(), small()
    ticket = ticket_of(network)
    with pytest.raises(InputError, match="factory="):
        export(ticket, tmp_path / "none")
    with pytest.raises(InputError, match="examples="):
        export(ticket, tmp_path / "none", network=small())
    assert not (tmp_path / "none").exists()
    mine = small()
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    labelled = export(ticket, tmp_path / "one", network=mine, examples=Examples(x, y, "blobs"), kinds=KINDS, turns=1)
    assert mine.training  # only a copy was used
    assert all(torch.equal(tensor, before[name]) for name, tensor in mine.state_dict().items())
    accuracy = (network(x).argmax(1) == y).double().mean().item()
    whole = [each for each in labelled.figures if each.name not in ("CSR", "ticket, fp16")]
    assert {each.accuracy for each in whole} == {accuracy}
    assert (labelled.about.data, labelled.about.inputs) == ("blobs", "float32 (N, 6)")
    assert labelled.figures[1].weights == ticket.mask.count
    plain = export(ticket, tmp_path / "two", network=mine, examples=Examples(x), kinds=KINDS, turns=1)
    assert [each.name for each in plain.figures] == [each.name for each in labelled.figures]
    assert all(each.accuracy is None for each in plain.figures)
    # the sparse program is tuned by timing, so its sums may be rounded in another order
    rounded = [
        None if each.difference is None else pytest.approx(each.difference, abs=1e-6) for each in labelled.figures
    ]
    assert [each.difference for each in plain.figures] == rounded


def test_a_held_network_in_double_precision_is_only_copied(tmp_path: Path) -> None:
    network = small().double()
    ticket = ticket_of(network)
    hold(network, ticket.mask)
    exported = export(ticket, tmp_path, network=network, examples=Examples(blobs()[0]), kinds=QUICK_KINDS, turns=1)
    assert exported.figures[0].memory == 4 * sum(p.numel() for p in network.parameters())
    assert next(network.parameters()).dtype == torch.float64
    assert held(network) == ticket.mask


def test_networks_and_examples_that_do_not_fit_are_an_error(tmp_path: Path) -> None:
    ticket, x = ticket_of(small()), blobs()[0]
    with pytest.raises(InputError, match="architecture"):
        export(ticket, tmp_path / "new", network=nn.Linear(6, 2), examples=Examples(x))
    with pytest.raises(InputError, match=r"does not take an example of \(2, 5\)"):
        export(ticket, tmp_path / "new", network=small(), examples=Examples(x[:, :5]))

    class Mean(nn.Sequential):
        def forward(self, x: Tensor) -> Any:
            return (super().forward(x).mean(),)

    with pytest.raises(InputError, match="not tuple"):
        export(ticket, tmp_path / "new", network=Mean(*small()), examples=Examples(x))
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
def test_invalid_examples_are_an_error(x: Tensor, y: Tensor | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Examples(x, y)


def test_one_example_is_enough(tmp_path: Path) -> None:
    x, y = (each[:1] for each in digits_test())
    exported = export(digits_ticket("resnet", steps=2), tmp_path, examples=Examples(x, y), kinds=KINDS, turns=1)
    assert exported.about.examples == 1
    assert {each.accuracy for each in exported.figures} <= {0.0, 1.0, None}
    assert len(exported.figures) == 5
    assert all(set(each.throughput) == {64, 256} for each in exported.figures if each.latency is not None)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_outputs_that_are_not_finite_are_counted_and_valid_json(tmp_path: Path, value: float) -> None:
    network, (x, y) = small(), blobs()
    x = x.clone()
    x[3] = value
    exported = export(ticket_of(network), tmp_path, network=network, examples=Examples(x, y), kinds=KINDS, turns=1)
    assert [each.not_finite for each in exported.figures if each.name != "CSR"] == [1] * (len(exported.figures) - 1)

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} in JSON")

    json.loads((tmp_path / FIGURES_FILE).read_text(), parse_constant=refuse)
    assert read_export(tmp_path) == exported


def test_weights_that_are_not_finite_are_not_exported_as_graphs(tmp_path: Path) -> None:
    network = small()
    ticket = ticket_of(network)
    ticket.trained["2.bias"][0] = math.nan
    exported = export(ticket, tmp_path, network=network, examples=Examples(*blobs()), turns=1)
    for kind, name in (("onnx", "ONNX Runtime"), ("exported", "torch.export")):
        assert "not finite" in exported.left_out[kind]
        assert name in exported.left_out[kind]
    assert all(each.not_finite == 64 for each in exported.figures if each.name != "CSR")
    assert all(each.accuracy == 0 for each in exported.figures if each.name != "CSR")
    assert read_export(tmp_path) == exported


def test_rewound_tickets_are_exported(tmp_path: Path) -> None:
    ticket = digits_ticket()
    run = RecipeExperiment(tiny(model=NETWORKS["mlp"])).dense(0)
    rewound = run.after(run.until(10), begin=10).masked(ticket.mask)
    about = ticket.provenance | {"run": rewound.description, "key": rewound.key}
    Ticket(ticket.mask, ticket.start, about, ticket.trained, drawn=rewound.start).save(tmp_path / "ticket")
    exported = export(Ticket.load(tmp_path / "ticket"), tmp_path / "shipped", kinds=QUICK_KINDS, turns=1)
    assert exported.about.ticket.key == rewound.key
    assert (
        exported.figures[0].accuracy
        == export(ticket, tmp_path / "same", kinds=QUICK_KINDS, turns=1).figures[0].accuracy
    )


def test_a_factory_makes_the_network(tmp_path: Path) -> None:
    (x, y), network = blobs(), small()
    ticket = ticket_of(network)
    one, other = (
        export(ticket, tmp_path / name, examples=Examples(x, y), kinds=QUICK_KINDS, turns=1, **given)
        for name, given in (("one", {"network": network}), ("other", {"factory": small}))
    )
    assert [each.accuracy for each in one.figures] == [each.accuracy for each in other.figures]
    for factory, message in ((lambda: None, "NoneType"), (lambda: {}[1], "failed"), (3, "int")):
        with pytest.raises(InputError, match=f"factory: .*{message}"):
            export(ticket, tmp_path / "none", factory=factory, examples=Examples(x))  # type: ignore[arg-type]


WRONG_LABELS = torch.zeros(2, 6), [0, 1]


def given_examples() -> tuple[Tensor, Tensor]:
    return blobs()


def test_examples_are_read_from_a_file_or_an_import_path(tmp_path: Path) -> None:
    x, y = blobs()
    np.savez(tmp_path / "both.npz", x=x.double().numpy(), y=y.int().numpy())
    np.savez(tmp_path / "inputs.npz", x=x.numpy())
    for source, labels in (
        (tmp_path / "both.npz", y),
        (tmp_path / "inputs.npz", None),
        (f"{__name__}:given_examples", y),
    ):
        found = read_examples(str(source))
        assert isinstance(found.x, Tensor)
        assert torch.equal(found.x, x)
        assert found.y is None if labels is None else found.y is not None and torch.equal(found.y, labels)
    np.savez(tmp_path / "other.npz", z=x.numpy())
    (tmp_path / "damaged.npz").write_bytes(b"PK")
    for wrong in (
        tmp_path / "other.npz",
        tmp_path / "damaged.npz",
        tmp_path / "none.npz",
        "nowhere:x",
        "plain",
        f"{__name__}:no",
        "math:pi",
        f"{__name__}:WRONG_LABELS",
    ):
        with pytest.raises(InputError, match=r"^--examples: "):
            read_examples(str(wrong))
        with pytest.raises(InputError, match=r"^--calibration: "):
            read_examples(str(wrong), "--calibration")
