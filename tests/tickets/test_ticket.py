from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TINY, random_mask, tiny
from tombola._find_ticket import find_ticket
from tombola._run_experiment import run_experiment
from tombola.pruning.mask import Mask, State
from tombola.runs import sparse_state as packing
from tombola.runs.run import Run
from tombola.tickets.mask_codec import encode
from tombola.tickets.ticket import Precision, Ticket
from tombola.utils.errors import InputError
from tombola.utils.files import read_tensors, write_tensors
from tombola.zoo.datasets import prepare
from tombola.zoo.models import build, describe, initialise
from tombola.zoo.models.description import Trained


def a_ticket(run: Run) -> Ticket:
    network = build(run.start)
    mask = random_mask(run, 0.2)
    mask.apply_(network)
    return Ticket(mask, network.state_dict(), {"recipe": {"name": "tiny"}})


def test_it_loads_into_a_fresh_network_in_one_line(dense: Run, tmp_path: Path) -> None:
    ticket = a_ticket(dense)
    ticket.save(tmp_path / "ticket.safetensors")
    fresh = build(dense.reinitialised(123).start)
    fresh = Ticket.load(tmp_path / "ticket.safetensors").into(fresh)
    original = build(dense.start).state_dict()
    for name, tensor in fresh.state_dict().items():
        expected = original[name] * ticket.mask[name] if name in ticket.mask else original[name]
        assert torch.equal(tensor, expected)


def test_everything_comes_back(dense: Run, tmp_path: Path) -> None:
    ticket = a_ticket(dense)
    ticket.save(tmp_path / "ticket.safetensors")
    again = Ticket.load(tmp_path / "ticket.safetensors")
    assert again.mask == ticket.mask
    assert again.provenance == ticket.provenance
    assert again.start.keys() == ticket.start.keys()


def test_its_size_follows_the_weights_left(dense: Run, tmp_path: Path) -> None:
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


def trained_ticket(run: Run) -> Ticket:
    """With its description, and weights that pass for trained."""
    untrained = a_ticket(run)
    generator = torch.Generator().manual_seed(7)
    trained = {n: t + torch.randn(t.shape, generator=generator) / 10 for n, t in untrained.start.items()}
    for name, kept in untrained.mask.items():
        trained[name].masked_fill_(~kept, 0)
    return Ticket(untrained.mask, untrained.start, {"run": run.description}, trained, drawn=run.start)


def again(ticket: Ticket, path: Path, **how: Any) -> Ticket:
    ticket.save(path, **how)
    return Ticket.load(path)


def assert_same(one: State | None, other: State | None) -> None:
    assert one is not None
    assert other is not None
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("how", ["auto", "seed", "value"])
def test_initial_weights_come_back_by_seed_and_by_value(dense: Run, tmp_path: Path, how: Any) -> None:
    ticket = trained_ticket(dense)
    loaded = again(ticket, tmp_path / "ticket", start=how)
    assert loaded.mask == ticket.mask
    assert list(loaded.mask) == list(ticket.mask)
    assert loaded.provenance == ticket.provenance
    assert loaded.drawn == dense.start
    assert_same(loaded.start, ticket.start)
    assert_same(loaded.trained, ticket.trained)
    assert loaded.stored is not None
    assert loaded.stored.start == ("value" if how == "value" else "seed")
    assert loaded.stored.bytes == (tmp_path / "ticket").stat().st_size
    there = {name.partition("/")[0] for name in read_tensors(tmp_path / "ticket")[0]}
    assert there == {"record", "mask", "trained"} | ({"start"} if how == "value" else set())


def test_the_same_ticket_has_the_same_bytes(dense: Run, tmp_path: Path) -> None:
    ticket = trained_ticket(dense)
    ticket.save(tmp_path / "one")
    again(ticket, tmp_path / "one").save(tmp_path / "other")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_numbers_that_this_machine_does_not_draw_are_noticed(
    dense: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = trained_ticket(dense)
    ticket.save(tmp_path / "ticket", start="seed")
    monkeypatch.setitem(initialise._DRAW, "glorot-normal", nn.init.xavier_uniform_)  # another machine
    loaded = Ticket.load(tmp_path / "ticket")
    with pytest.raises(InputError, match="draws other initial weights than the ticket's"):
        _ = loaded.start
    assert_same(loaded.trained, ticket.trained)
    loaded.save(tmp_path / "copy")  # it is still the same ticket
    elsewhere = again(ticket, tmp_path / "value")  # `auto` writes nothing that cannot be read here
    assert elsewhere.stored is not None
    assert elsewhere.stored.start == "value"
    with pytest.raises(InputError, match="drawing does not give the initial weights"):
        ticket.save(tmp_path / "seed", start="seed")
    monkeypatch.undo()
    assert_same(Ticket.load(tmp_path / "copy").start, ticket.start)


def other_starts(run: Run) -> list[Ticket]:
    """Tickets whose weights exist only by value."""
    ticket = trained_ticket(run)
    left = run.start.model_copy(update={"trained": Trained(run="0" * 32)})
    imported = describe("tests.tickets.test_ticket:small", {}, (6,), 2)
    small_mask = Mask.full(small())
    return [
        Ticket(ticket.mask, ticket.start),
        Ticket(ticket.mask, ticket.start, drawn=left),
        Ticket(ticket.mask, ticket.start, drawn=run.reinitialised(8).start),
        Ticket(small_mask, small().state_dict(), drawn=run.start.model_copy(update={"network": imported})),
    ]


def small() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


@pytest.mark.parametrize("which", range(4))
def test_weights_that_cannot_be_drawn_are_held_by_value(dense: Run, tmp_path: Path, which: int) -> None:
    ticket = other_starts(dense)[which]
    loaded = again(ticket, tmp_path / "ticket")
    assert_same(loaded.start, ticket.start)
    assert loaded.drawn == ticket.drawn
    assert loaded.stored is not None
    assert loaded.stored.start == "value"
    with pytest.raises(InputError, match=r"^start: "):
        ticket.save(tmp_path / "seed", start="seed")
    assert not (tmp_path / "seed").exists()


@pytest.mark.parametrize(
    "derived",
    [lambda run: run.reusing(5, keep_signs=True), lambda run: run.reinitialised(9), lambda run: like_other(run)],
)
def test_reused_and_transferred_weights_are_drawn_too(dense: Run, tmp_path: Path, derived: Any) -> None:
    ticket = trained_ticket(derived(dense))
    loaded = again(ticket, tmp_path / "ticket", start="seed")
    assert_same(loaded.start, ticket.start)


def like_other(run: Run) -> Run:
    """From the weights of a network for more classes."""
    like = run.start.network.model_copy(update={"classes": 30})
    return run.model_copy(update={"start": run.start.model_copy(update={"like": like})})


@pytest.mark.parametrize(("precision", "relative"), [("fp32", 0.0), ("fp16", 2**-11), ("bf16", 2**-8)])
def test_trained_weights_come_back_to_their_precision(
    dense: Run, tmp_path: Path, precision: Precision, relative: float
) -> None:
    ticket = trained_ticket(dense)
    loaded = again(ticket, tmp_path / "ticket", trained=precision)
    assert loaded.stored is not None
    assert loaded.stored.trained == precision
    assert loaded.trained is not None
    assert ticket.trained is not None
    for name, tensor in ticket.trained.items():
        assert loaded.trained[name].dtype == torch.float32
        assert torch.allclose(loaded.trained[name], tensor, rtol=relative, atol=2**-25)
        assert torch.equal(loaded.trained[name] == 0, tensor == 0)
    assert again(ticket, tmp_path / "ticket", trained="none").trained is None


def test_statistics_come_back_whole_and_what_overflows_is_refused(tmp_path: Path) -> None:
    network = small()
    mask = Mask.full(network)
    state = network.state_dict()
    state["2.running_var"] = torch.tensor([1.0, 2.0, 3.0, 7e4])  # beyond fp16
    state["2.num_batches_tracked"] = torch.tensor(70_000)
    state["2.running_mean"][0] = torch.inf  # infinite as it is
    ticket = Ticket(mask, small().state_dict(), trained=state)
    for precision in ("fp32", "bf16"):
        loaded = again(ticket, tmp_path / "ticket", trained=precision).trained
        assert loaded is not None
        assert loaded["2.num_batches_tracked"] == 70_000
        assert loaded["2.running_var"][3] == pytest.approx(7e4, rel=2**-8)
        assert loaded["2.running_mean"][0] == torch.inf
    with pytest.raises(InputError, match=r'2\.running_var has numbers that fp16 cannot hold; should be "bf16" or'):
        ticket.save(tmp_path / "half", trained="fp16")


def test_either_weights_go_into_a_network(dense: Run, tmp_path: Path) -> None:
    ticket = again(trained_ticket(dense), tmp_path / "ticket")
    fresh = build(dense.reinitialised(123).start)
    assert_same(ticket.into(fresh).state_dict(), ticket.start)
    assert_same(ticket.into(fresh, trained=True).state_dict(), ticket.trained)
    network = ticket.network()
    assert not network.training
    assert_same(network.state_dict(), ticket.trained)
    assert_same(ticket.network(trained=False).state_dict(), ticket.start)
    without = again(ticket, tmp_path / "without", trained="none")
    for ask in (without.network, lambda: without.into(fresh, trained=True)):
        with pytest.raises(InputError, match="has no trained weights"):
            ask()


def test_only_networks_of_tombola_are_made(dense: Run, tmp_path: Path) -> None:
    nowhere, left, _, imported = other_starts(dense)
    for ticket in (imported, again(imported, tmp_path / "imported")):
        with pytest.raises(
            InputError, match=r"tests\.tickets\.test_ticket:small.* is not one of tombola's own: give it"
        ):
            ticket.network(trained=False)
    with pytest.raises(InputError, match=r"does not say what network it is of: give the network: ticket\.into"):
        nowhere.network(trained=False)
    assert_same(again(left, tmp_path / "left").network(trained=False).state_dict(), left.start)


def write_format_1(ticket: Ticket, path: Path) -> None:
    write_tensors(path, packing.pack(ticket.start, ticket.mask), {"format": 1, "provenance": ticket.provenance})


def test_files_of_the_first_format_are_read(dense: Run, tmp_path: Path) -> None:
    ticket = trained_ticket(dense)
    write_format_1(ticket, tmp_path / "old")
    loaded = Ticket.load(tmp_path / "old")
    assert loaded.mask == ticket.mask
    assert loaded.provenance == ticket.provenance
    assert_same(loaded.start, ticket.start)
    assert loaded.trained is None
    assert loaded.stored is not None
    assert (loaded.stored.format, loaded.stored.start) == (1, "value")
    assert_same(loaded.network(trained=False).state_dict(), ticket.start)
    assert_same(again(loaded, tmp_path / "new", start="seed").start, ticket.start)


def test_files_of_a_newer_format_are_refused(dense: Run, tmp_path: Path) -> None:
    a_ticket(dense).save(tmp_path / "ticket")
    write_tensors(tmp_path / "ticket", read_tensors(tmp_path / "ticket")[0], {"format": 3})
    with pytest.raises(InputError, match="written by a newer tombola; this one reads tickets up to format 2"):
        Ticket.load(tmp_path / "ticket")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"provenance": {"text": "a" * 2**20}}, "provenance is too long"),
        ({"provenance": {"deep": eval("[" * 70 + "]" * 70)}}, "too deep"),
        ({"mask": Mask({})}, "0 weights"),
        ({"start": {}}, "names do not agree"),
        ({"trained": {"fc1.weight": torch.zeros(20, 64)}}, "names do not agree|not those that its record names"),
        ({"trained": {}}, "not those that its record names"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(
    dense: Run, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    ticket = a_ticket(dense)
    parts = {"mask": ticket.mask, "start": ticket.start, "provenance": {}, "trained": None} | changes
    with pytest.raises(InputError, match=message):
        Ticket(**parts).save(tmp_path / "ticket")
    assert list(tmp_path.iterdir()) == []


def test_wrong_options_are_named(dense: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match='unknown way to save start "sead": did you mean "seed"'):
        a_ticket(dense).save(tmp_path / "ticket", start="sead")  # type: ignore[arg-type]
    with pytest.raises(InputError, match='unknown way to save trained "fp64"'):
        a_ticket(dense).save(tmp_path / "ticket", trained="fp64")  # type: ignore[arg-type]


def test_a_ticket_is_not_changed_in_place(dense: Run) -> None:
    with pytest.raises(AttributeError):
        a_ticket(dense).mask = random_mask(dense, 0.5)  # type: ignore[misc]


def test_an_experiment_keeps_its_ticket_with_trained_weights_and_the_verdict(tmp_path: Path) -> None:
    recipe = tiny(
        replicates=3,
        training=TINY["training"] | {"length": "300it", "lr": 0.05},
        search=TINY["search"] | {"levels": 1},
        controls={},
        verdict={"accuracy_margin": 0.99, "stop_margin": 99.0, "max_density": 0.99},
    )
    results = run_experiment(recipe, tmp_path / "out", store=tmp_path / "store")
    ticket = Ticket.load(tmp_path / "out" / "ticket.safetensors")
    assert ticket.stored is not None
    assert ticket.stored.start == "seed"
    about = ticket.provenance
    run = next(row.run for row in results.rows if (row.replicate, row.level) == (about["replicate"], 1))
    assert about["key"] == run
    dense = next(row for row in results.rows if (row.replicate, row.level) == (about["replicate"], 0))
    assert about["dense"] == dense.measures.model_dump()
    assert about["verdict"]["state"] == "winning"
    assert about["verdict"]["sentence"].startswith("Winning tickets down to")
    test = prepare(Run.model_validate(about["run"] | {"mask": ticket.mask}, strict=False).data).test
    x, y = test[torch.arange(len(test))]
    with torch.no_grad():
        accuracy = float((ticket.network()(x).argmax(1) == y).float().mean())
    assert accuracy == pytest.approx(about["measures"]["test_accuracy"], abs=1e-6)
    assert about["measures"]["test_accuracy"] != dense.measures.test_accuracy


def test_a_ticket_of_ones_own_network_carries_its_trained_weights(tmp_path: Path) -> None:
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

    found = find_ticket(small, train, evaluate=accuracy, levels=2, rate=0.5)
    ticket = again(found.ticket, tmp_path / "ticket")
    assert ticket.stored is not None
    assert ticket.stored.start == "value"
    figures = ticket.provenance["figures"]["0"]
    assert accuracy(ticket.into(small(), trained=True).eval()) == next(iter(figures.values()))
    assert all((ticket.trained[name][~kept] == 0).all() for name, kept in ticket.mask.items())  # type: ignore[index]
    with pytest.raises(InputError, match="does not say what network it is of"):
        ticket.network()


def test_another_architecture_is_refused(dense: Run) -> None:
    wider = dense.start.network.model_copy(update={"options": {"widths": [21, 10]}})
    other = build(dense.start.model_copy(update={"network": wider}))
    with pytest.raises(InputError, match=r"another architecture: fc1\.weight is \(20, 64\).*\(21, 64\)"):
        a_ticket(dense).into(other)
    with pytest.raises(InputError, match=r"fc1\.weight is \(20, 64\).*missing in the network"):
        a_ticket(dense).into(torch.nn.Sequential())


@pytest.mark.parametrize("harm", ["missing", "damaged", "a store entry"])
def test_what_is_no_ticket_is_refused_in_one_line(dense: Run, tmp_path: Path, harm: str) -> None:
    path = tmp_path / "ticket.safetensors"
    if harm != "missing":
        a_ticket(dense).save(path)
    if harm == "damaged":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    if harm == "a store entry":
        from tombola.utils.files import write_tensors

        write_tensors(path, {"whole/a": torch.ones(1)}, {"measures": {}})
    with pytest.raises(InputError) as caught:
        Ticket.load(path)
    assert "\n" not in str(caught.value)
    assert "ticket.safetensors" in str(caught.value)


def test_the_documented_reader_reads_the_masks(dense: Run, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "ticket-file.md").read_text(encoding="utf-8")
    code = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def read_masks" in block)
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    for density in (0.0, 0.02, 0.3, 0.7, 1.0):
        mask = random_mask(dense, density)
        network = build(dense.start)
        mask.apply_(network)
        Ticket(mask, network.state_dict(), drawn=dense.start).save(tmp_path / "ticket")
        masks = namespace["read_masks"](tmp_path / "ticket")
        assert list(masks) == list(mask)
        assert all(torch.equal(torch.tensor(masks[name]), kept.view(-1)) for name, kept in mask.items())


def test_the_documented_digest_is_the_files(dense: Run, tmp_path: Path) -> None:
    """As the page says it, from the bytes alone."""
    trained_ticket(dense).save(tmp_path / "ticket", start="value", trained="bf16")
    content = (tmp_path / "ticket").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    about = json.loads(header.pop("__metadata__")["tombola"])
    assert about["about"] == '{"format": 2}'
    types = {"F32": "torch.float32", "BF16": "torch.bfloat16", "U8": "torch.uint8"}
    sha = hashlib.sha256(about["about"].encode())
    for name, entry in sorted(header.items()):
        begin, end = entry["data_offsets"]
        sha.update(f"{name}{types[entry['dtype']]}{tuple(entry['shape'])}".encode())
        sha.update(content[8 + length + begin : 8 + length + end])
    assert sha.hexdigest() == about["digest"]
