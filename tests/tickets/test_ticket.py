"""Tickets in memory and as files; the tickets that an experiment and a search give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.custom_search import Small, X
from tests.support.errors import raises_input_error
from tests.support.fake_engine import FakeEngine
from tests.support.outcomes import random_mask
from tests.support.recipes import tiny
from tests.support.renamed_states import RENAMED, WithExtraState
from tests.support.tickets import (
    EASY,
    assert_same_state,
    custom_network,
    saved_and_loaded,
    trained_ticket,
    undrawable_tickets,
    untrained_ticket,
    write_version_1,
)
from tombola._find_ticket import find_ticket
from tombola._run_experiment import run_experiment
from tombola.pruning.hold import hold
from tombola.pruning.mask import Mask
from tombola.pruning.network_state import network_state, persistent_tensors
from tombola.pruning.prune_model import prune
from tombola.runs.run import Run
from tombola.tickets.file_format import kept_values
from tombola.tickets.mask_codec import encode
from tombola.tickets.precision import Precision
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError
from tombola.utils.files import digest, read_tensors, write_tensors
from tombola.zoo.datasets import prepare
from tombola.zoo.models import build, initialise


def test_initial_and_trained_weights_load_into_a_network(dense: Run, tmp_path: Path) -> None:
    ticket = saved_and_loaded(trained_ticket(dense), tmp_path / "ticket")
    other = build(dense.reinitialised(123).start)
    assert_same_state(ticket.into(other).state_dict(), ticket.start)
    assert_same_state(ticket.into(other, trained=True).state_dict(), ticket.trained)
    network = ticket.network()
    assert not network.training
    assert_same_state(network.state_dict(), ticket.trained)
    assert_same_state(ticket.network(trained=False).state_dict(), ticket.start)


def test_missing_trained_weights_are_an_error(dense: Run, tmp_path: Path) -> None:
    ticket = saved_and_loaded(trained_ticket(dense), tmp_path / "ticket", trained="none")
    for load in (ticket.network, lambda: ticket.into(build(dense.start), trained=True)):
        with pytest.raises(InputError, match="no trained weights"):
            load()


def test_only_built_in_networks_are_made(dense: Run, tmp_path: Path) -> None:
    tickets = undrawable_tickets(dense)
    imported = tickets["by import path"]
    for ticket in (imported, saved_and_loaded(imported, tmp_path / "imported")):
        with pytest.raises(InputError, match=r"custom_network.*ticket\.into"):
            ticket.network(trained=False)
    with pytest.raises(InputError, match=r"ticket\.into"):
        tickets["without a description"].network(trained=False)
    rewound = tickets["rewound"]
    network = saved_and_loaded(rewound, tmp_path / "rewound").network(trained=False)
    assert_same_state(network.state_dict(), rewound.start)


def test_another_architecture_is_refused(dense: Run) -> None:
    wider = dense.start.network.model_copy(update={"options": {"widths": [21, 10]}})
    other = build(dense.start.model_copy(update={"network": wider}))
    with pytest.raises(InputError, match=r"fc1\.weight is \(20, 64\).*\(21, 64\)"):
        untrained_ticket(dense).into(other)
    with pytest.raises(InputError, match=r"fc1\.weight is \(20, 64\).*missing"):
        untrained_ticket(dense).into(torch.nn.Sequential())


def test_a_ticket_is_immutable(dense: Run) -> None:
    with pytest.raises(AttributeError):
        untrained_ticket(dense).mask = random_mask(dense, 0.5)  # type: ignore[misc]


def test_an_experiment_saves_trained_weights_and_the_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tombola._trainers.named_engine", lambda *_: FakeEngine())
    results = run_experiment(tiny(**EASY), tmp_path / "out", store=tmp_path / "store")
    ticket = Ticket.load(tmp_path / "out" / "ticket.safetensors")
    assert ticket.stored is not None
    assert ticket.stored.start == "seed"
    provenance = ticket.provenance
    rows = {row.level: row for row in results.rows if row.replicate == provenance["replicate"]}
    assert provenance["key"] == rows[1].run
    assert provenance["dense"] == rows[0].measures.model_dump()
    assert provenance["verdict"]["state"] == "winning"
    assert provenance["verdict"]["sentence"]
    test = prepare(Run.model_validate(provenance["run"] | {"mask": ticket.mask}, strict=False).data).test
    x, y = test[torch.arange(len(test))]
    with torch.no_grad():
        accuracy = float((ticket.network()(x).argmax(1) == y).float().mean())
    assert accuracy == pytest.approx(provenance["measures"]["test_accuracy"], abs=1e-6)


def test_a_custom_network_keeps_its_trained_weights(tmp_path: Path) -> None:
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()

    def train(network: nn.Module) -> None:
        optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
        for _ in range(20):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()

    def accuracy(network: nn.Module) -> float:
        logits: Tensor = network(x)
        return float((logits.argmax(1) == y).float().mean())

    found = find_ticket(custom_network, train, evaluate=accuracy, levels=2, rate=0.5)
    ticket = saved_and_loaded(found.ticket, tmp_path / "ticket")
    assert ticket.stored is not None
    assert ticket.stored.start == "value"
    measured = ticket.provenance["measures"]["validation_figure"]
    assert accuracy(ticket.into(custom_network(), trained=True).eval()) == pytest.approx(measured)
    assert all((ticket.trained[name][~kept] == 0).all() for name, kept in ticket.mask.items())  # type: ignore[index]
    with pytest.raises(InputError, match=r"ticket\.into"):
        ticket.network()


@pytest.mark.parametrize("start", ["auto", "seed", "value"])
def test_a_ticket_is_read_as_it_was_written(dense: Run, tmp_path: Path, start: Any) -> None:
    ticket = trained_ticket(dense)
    loaded = saved_and_loaded(ticket, tmp_path / "ticket", start=start)
    assert loaded.mask == ticket.mask
    assert list(loaded.mask) == list(ticket.mask)
    assert loaded.provenance == ticket.provenance
    assert loaded.drawn == dense.start
    assert_same_state(loaded.start, ticket.start)
    assert_same_state(loaded.trained, ticket.trained)
    assert loaded.stored is not None
    assert loaded.stored.start == ("value" if start == "value" else "seed")
    assert loaded.stored.bytes == (tmp_path / "ticket").stat().st_size
    kinds = {name.partition("/")[0] for name in read_tensors(tmp_path / "ticket")[0]}
    assert kinds == {"record", "mask", "trained"} | ({"start"} if start == "value" else set())


def test_the_same_ticket_has_the_same_bytes(dense: Run, tmp_path: Path) -> None:
    ticket = trained_ticket(dense)
    saved_and_loaded(ticket, tmp_path / "one").save(tmp_path / "other")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_the_size_follows_the_weights_left(dense: Run, tmp_path: Path) -> None:
    ticket = trained_ticket(dense)
    code = sum(len(encode(kept.reshape(-1).numpy())) for kept in ticket.mask.values())
    biases = sum(t.numel() for n, t in ticket.start.items() if n not in ticket.mask)
    weights, header = ticket.mask.count + biases, 2000
    for start, trained, numbers in (
        ("seed", "none", 0),
        ("seed", "fp16", 2 * weights),
        ("seed", "fp32", 4 * weights),
        ("value", "fp32", 8 * weights),
    ):
        ticket.save(tmp_path / "ticket.safetensors", start=start, trained=trained)  # type: ignore[arg-type]
        size = (tmp_path / "ticket.safetensors").stat().st_size
        assert code + numbers < size < code + numbers + header


def test_other_random_numbers_on_this_machine_are_noticed(
    dense: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = trained_ticket(dense)
    ticket.save(tmp_path / "ticket", start="seed")
    monkeypatch.setitem(initialise._DRAW, "glorot-normal", nn.init.xavier_uniform_)  # as if on another machine
    loaded = Ticket.load(tmp_path / "ticket")
    with pytest.raises(InputError, match="draws other initial weights"):
        _ = loaded.start
    assert_same_state(loaded.trained, ticket.trained)
    loaded.save(tmp_path / "copy")  # it is still the same ticket
    by_value = saved_and_loaded(ticket, tmp_path / "value")  # `auto` writes only what can be read here
    assert by_value.stored is not None
    assert by_value.stored.start == "value"
    with pytest.raises(InputError, match=r"start: .*other initial weights"):
        ticket.save(tmp_path / "seed", start="seed")
    monkeypatch.undo()
    assert_same_state(Ticket.load(tmp_path / "copy").start, ticket.start)


@pytest.mark.parametrize("which", ["without a description", "rewound", "of another seed", "by import path"])
def test_weights_that_cannot_be_drawn_are_stored_by_value(dense: Run, tmp_path: Path, which: str) -> None:
    ticket = undrawable_tickets(dense)[which]
    loaded = saved_and_loaded(ticket, tmp_path / "ticket")
    assert_same_state(loaded.start, ticket.start)
    assert loaded.drawn == ticket.drawn
    assert loaded.stored is not None
    assert loaded.stored.start == "value"
    with pytest.raises(InputError, match=r"^start: "):
        ticket.save(tmp_path / "seed", start="seed")
    assert not (tmp_path / "seed").exists()


def test_reused_and_transferred_weights_can_be_drawn(dense: Run, tmp_path: Path) -> None:
    like = dense.start.network.model_copy(update={"classes": 30})
    transferred = dense.model_copy(update={"start": dense.start.model_copy(update={"like": like})})
    for run in (dense.reusing(5, keep_signs=True), dense.reinitialised(9), transferred):
        ticket = trained_ticket(run)
        assert_same_state(saved_and_loaded(ticket, tmp_path / "ticket", start="seed").start, ticket.start)


@pytest.mark.parametrize(("precision", "relative"), [("fp32", 0.0), ("fp16", 2**-11), ("bf16", 2**-8)])
def test_trained_weights_are_stored_at_a_precision(
    dense: Run, tmp_path: Path, precision: Precision, relative: float
) -> None:
    ticket = trained_ticket(dense)
    loaded = saved_and_loaded(ticket, tmp_path / "ticket", trained=precision)
    assert loaded.stored is not None
    assert loaded.stored.trained == precision
    assert loaded.trained is not None
    assert ticket.trained is not None
    for name, tensor in ticket.trained.items():
        assert loaded.trained[name].dtype == torch.float32
        assert torch.allclose(loaded.trained[name], tensor, rtol=relative, atol=2**-25)
        assert torch.equal(loaded.trained[name] == 0, tensor == 0)
    assert saved_and_loaded(ticket, tmp_path / "ticket", trained="none").trained is None


def test_statistics_are_stored_whole_and_overflow_is_refused(tmp_path: Path) -> None:
    network = custom_network()
    state = network.state_dict()
    state["2.running_var"] = torch.tensor([1.0, 2.0, 3.0, 7e4])  # too large for fp16
    state["2.num_batches_tracked"] = torch.tensor(70_000)
    state["2.running_mean"][0] = torch.inf  # infinite before rounding: no overflow
    ticket = Ticket(Mask.full(network), custom_network().state_dict(), trained=state)
    for precision in ("fp32", "bf16"):
        loaded = saved_and_loaded(ticket, tmp_path / "ticket", trained=precision).trained
        assert loaded is not None
        assert loaded["2.num_batches_tracked"] == 70_000
        assert loaded["2.running_var"][3] == pytest.approx(7e4, rel=2**-8)
        assert loaded["2.running_mean"][0] == torch.inf
    with pytest.raises(InputError, match=r"2\.running_var.*fp16.*bf16"):
        ticket.save(tmp_path / "half", trained="fp16")


def test_a_ticket_of_an_earlier_version_opens() -> None:
    """Written by a former version of `find_ticket`."""
    ticket = Ticket.load(Path(__file__).parent / "golden" / "custom_search.safetensors")
    assert ticket.mask.counts == {"0.weight": 410, "2.weight": 82}
    assert ticket.mask.shapes == {"0.weight": (64, 10), "2.weight": (2, 64)}
    start = digest(kept_values(ticket.start, ticket.mask))
    assert start == "b3936620c42e46873221a60bbc6ff2217943cc7322a30b08f066e2ff59e7e63b"
    assert ticket.provenance.keys() == {"level", "replicate", "state", "figures", "run", "key", "versions"}
    assert ticket.trained is not None
    assert ticket.trained.keys() == ticket.start.keys()


def test_files_of_version_1_are_read(dense: Run, tmp_path: Path) -> None:
    ticket = trained_ticket(dense)
    write_version_1(ticket, tmp_path / "old")
    loaded = Ticket.load(tmp_path / "old")
    assert loaded.mask == ticket.mask
    assert loaded.provenance == ticket.provenance
    assert_same_state(loaded.start, ticket.start)
    assert loaded.trained is None
    assert loaded.stored is not None
    assert (loaded.stored.format, loaded.stored.start) == (1, "value")
    assert_same_state(loaded.network(trained=False).state_dict(), ticket.start)
    assert_same_state(saved_and_loaded(loaded, tmp_path / "new", start="seed").start, ticket.start)


def test_files_of_a_newer_version_are_refused(dense: Run, tmp_path: Path) -> None:
    untrained_ticket(dense).save(tmp_path / "ticket")
    write_tensors(tmp_path / "ticket", read_tensors(tmp_path / "ticket")[0], {"format": 3})
    with pytest.raises(InputError, match=r"newer tombola.*format 2"):
        Ticket.load(tmp_path / "ticket")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"provenance": {"text": "a" * 2**20}}, "too long"),
        ({"provenance": {"deep": eval("[" * 70 + "]" * 70)}}, "too deep"),
        ({"mask": Mask({})}, "0 prunable weights"),
        ({"start": {}}, "names"),
        ({"trained": {"fc1.weight": torch.zeros(20, 64)}}, "names"),
        ({"trained": {}}, "names"),
    ],
)
def test_a_ticket_that_could_not_be_read_is_not_written(
    dense: Run, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    ticket = untrained_ticket(dense)
    parts = {"mask": ticket.mask, "start": ticket.start, "provenance": {}, "trained": None} | changes
    with pytest.raises(InputError, match=message):
        Ticket(**parts).save(tmp_path / "ticket")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("option", "value"), [("start", "sead"), ("trained", "fp64")])
def test_unknown_options_are_named(dense: Run, tmp_path: Path, option: str, value: str) -> None:
    with pytest.raises(InputError, match=f'{option} "{value}"'):
        untrained_ticket(dense).save(tmp_path / "ticket", **{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", ["missing", "damaged", "a store entry"])
def test_files_that_are_not_tickets_are_refused_in_one_line(dense: Run, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "ticket.safetensors"
    if damage != "missing":
        untrained_ticket(dense).save(path)
    if damage == "damaged":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    if damage == "a store entry":
        write_tensors(path, {"whole/a": torch.ones(1)}, {"measures": {}})
    with pytest.raises(InputError) as caught:
        Ticket.load(path)
    assert "\n" not in str(caught.value)
    assert "ticket.safetensors" in str(caught.value)


@pytest.mark.parametrize("kind", RENAMED)
def test_tickets_load_into_networks_that_rename_or_shorten_their_state(kind: str) -> None:
    start = network_state(Small())
    del start["calls"]  # a buffer that is in no state_dict
    ticket = Ticket(Mask.full(Small()), start)
    network = ticket.into(RENAMED[kind]())
    assert all(torch.equal(tensor, start[name]) for name, tensor in persistent_tensors(network).items())
    with raises_input_error("another architecture", "fc1.weight", "missing"):
        ticket.into(torch.nn.Sequential())


def test_a_ticket_loaded_into_a_held_network_stays_pruned() -> None:
    ticket = Ticket(Mask.full(Small()), {n: t + 1 for n, t in persistent_tensors(Small()).items()})
    network = Small()
    mask = prune(network, 0.5)
    with hold(network, mask):
        ticket.into(network)
    for name, kept in mask.items():
        assert torch.equal(network.get_parameter(name), ticket.start[name] * kept)


def test_tickets_have_extra_states_that_are_tensors() -> None:
    network, other = WithExtraState(), WithExtraState()
    network(X)
    assert Ticket(Mask.full(network), persistent_tensors(network)).into(other).seen == len(X)
