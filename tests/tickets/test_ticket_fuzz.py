"""Damaged and malicious files: refused in one line, without executing code or allocating claimed sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.command_line import tombola
from tests.support.crafted_tickets import (
    HOSTILE_STARTS,
    base_files,
    changed_start,
    crafted_files,
    record_of,
    with_record,
)
from tombola.pruning.mask import State
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError
from tombola.utils.files import read_tensors, write_tensors


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without fsync for thousands of files."""
    monkeypatch.setattr("os.fsync", lambda _: None)


def same_state(one: State | None, other: State | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.keys() == other.keys() and all(
        tensor.dtype == other[name].dtype and torch.equal(tensor, other[name]) for name, tensor in one.items()
    )


def same(one: Ticket, other: Ticket) -> bool:
    """Whether all public properties are equal."""
    ours, theirs = ((t.mask, list(t.mask), t.provenance, t.drawn) for t in (one, other))
    return ours == theirs and same_state(one.trained, other.trained) and same_state(one.start, other.start)


def loaded(path: Path) -> Ticket | None:
    """The ticket in a file, with its initial weights drawn; None if it is refused in one line."""
    try:
        ticket = Ticket.load(path)
        _ = ticket.start
    except InputError as error:
        message = str(error)
    else:
        return ticket
    assert message.isprintable()
    assert len(message) < 1000
    return None


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """A randomly damaged file."""
    n = len(content)
    first, last = sorted(random.integers(0, n + 1, 2).tolist())
    third = int(random.integers(last, n + 1))
    near = first + int(random.integers(1, 9))
    flipped = bytearray(content)
    for place in random.integers(0, n, random.integers(1, 9)).tolist():
        flipped[place] ^= 1 << int(random.integers(0, 8))
    one = bytearray(content)
    one[int(random.integers(0, n))] ^= 1 << int(random.integers(0, 8))
    return [
        bytes(one),
        bytes(flipped),
        content[:first],
        content[first:],
        content[:first] + content[near:],  # a few bytes are missing
        content[:first] + content[first:near] + content[first:],  # or duplicated
        content[:first] + random.bytes(near - first) + content[near:],  # or random
        content[:first] + bytes(last - first) + content[last:],
        content[:first] + content[last:third] + content[first:last] + content[third:],  # two ranges are swapped
        content + random.bytes(near - first),
    ][random.integers(0, 10)]


def fuzz(folder: Path, seed: int, files: int) -> None:
    """Load this many damaged files of every kind."""
    random = np.random.default_rng(seed)
    for base, path in base_files(folder).items():
        original, content, target = Ticket.load(path), path.read_bytes(), folder / "damaged"
        for _ in range(files):
            target.write_bytes(damaged(content, random))
            if (ticket := loaded(target)) is not None:
                assert same(ticket, original), base


def test_damaged_files_are_refused_or_unchanged(tmp_path: Path) -> None:
    fuzz(tmp_path, 0, 400)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_more_damaged_files_are_refused_or_unchanged(tmp_path: Path, seed: int) -> None:
    fuzz(tmp_path, seed, 2_500)


@pytest.mark.parametrize("base", ["seed", "value", "fp32", "fp16", "bf16", "format-1"])
def test_flipped_bits_of_the_header_and_truncations_are_refused_or_unchanged(tmp_path: Path, base: str) -> None:
    path = base_files(tmp_path)[base]
    original, content = Ticket.load(path), path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    target = tmp_path / "damaged"
    for length in {*range(16), header - 1, header, header + 1, len(content) // 2, len(content) - 1}:
        target.write_bytes(content[:length])
        assert loaded(target) is None
    for bit in range(0, 8 * header, 19):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        target.write_bytes(flipped)
        ticket = loaded(target)
        assert ticket is None or same(ticket, original)


def test_changes_with_a_valid_digest_give_a_complete_ticket_or_an_error(tmp_path: Path) -> None:
    """Every accepted ticket can be saved and read."""
    random = np.random.default_rng(9)
    accepted = 0
    for base, path in list(base_files(tmp_path).items())[:-1]:
        tensors, about = read_tensors(path)
        for _ in range(150):
            changed = dict(tensors)
            if random.random() < 0.5:
                text = bytearray(json.dumps(record_of(tensors)).encode())
                text[int(random.integers(0, len(text)))] = int(random.choice(list(b'0123456789-,.[]{}":anx')))
                changed = with_record(changed, bytes(text))
            else:
                name = str(random.choice(sorted(set(tensors) - {"record"})))
                content = changed[name].clone()
                flat = content.view(-1).view(torch.uint8)
                if len(flat):
                    flat[int(random.integers(0, len(flat)))] ^= 1 << int(random.integers(0, 8))
                changed[name] = content
            target = tmp_path / "changed"
            write_tensors(target, changed, about)
            if (ticket := loaded(target)) is None:
                continue
            accepted += 1
            assert {n: tuple(t.shape) for n, t in ticket.start.items() if n in ticket.mask} == ticket.mask.shapes
            ticket.save(tmp_path / "again", start="value")
            again = Ticket.load(tmp_path / "again")
            assert again.mask == ticket.mask, base
            assert again.start.keys() == ticket.start.keys(), base
    assert accepted > 100


@pytest.fixture(scope="module")
def crafted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return crafted_files(tmp_path_factory.mktemp("crafted") / "files")


def test_malicious_files_are_refused_in_one_line(
    crafted: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("open('broken-into', 'w').close()\ninto = dict\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert len(crafted) > 180
    for description, path in crafted.items():
        assert loaded(path) is None, description
    assert not (tmp_path / "broken-into").exists()
    assert not {"timm", "broken"} & sys.modules.keys() or "timm" in sys.modules


LIMITED = """
import resource, sys
from pathlib import Path
import tombola
tombola.Ticket, tombola.InputError  # torch is imported for the first of them
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        tombola.Ticket.load(path).start
    except tombola.InputError:
        continue
    sys.exit(f"{path} was accepted")
print("all refused")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs the memory limits of Linux")
def test_malicious_files_need_little_memory(crafted: dict[str, Path]) -> None:
    folder = next(iter(crafted.values())).parent
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, str(folder)], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.stdout == "all refused\n", result.stderr


@pytest.mark.parametrize("what", HOSTILE_STARTS)
def test_a_malicious_description_beside_weights_by_value_makes_no_network(tmp_path: Path, what: str) -> None:
    """The weights are read all the same, without using the description."""
    path = base_files(tmp_path)["bf16"]
    original = Ticket.load(path)
    tensors, about = read_tensors(path)
    record = record_of(tensors) | {"drawn": changed_start(HOSTILE_STARTS[what])}
    write_tensors(path, with_record(tensors, record), about)
    try:
        ticket = Ticket.load(path)
    except InputError:
        assert what in ("an unknown part", "a seed of another type")
        return
    assert same_state(ticket.start, original.start)
    if what in ("trained weights", "like an import path", "like something large"):  # the network itself is valid
        assert same_state(ticket.network().state_dict(), original.trained)
        return
    with pytest.raises(InputError) as caught:
        ticket.network()
    assert "\n" not in str(caught.value)


def test_the_command_line_refuses_malicious_files_in_one_line(crafted: dict[str, Path]) -> None:
    for what in ("a bomb", "an import path", "deep resnet", "mask name '\\x1b[2J'", "10 GB of nothing"):
        result = tombola("ticket", "show", str(crafted[what]))
        assert result.exit_code == 2, what
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""


def test_control_characters_and_markup_of_a_file_are_not_interpreted(tmp_path: Path) -> None:
    path = base_files(tmp_path)["value"]
    hostile: dict[str, Any] = {"name": "[/bold]\x1b[2J", "measures": 3}
    figures = {"test_accuracy_at_stop": 0.5, "test_accuracy": 0.5, "stop_iteration": 3}
    known: dict[str, Any] = {"recipe": hostile, "replicate": 1, "level": 1, "key": "", "measures": figures}
    ticket = Ticket.load(path)
    for provenance in (
        {"recipe": hostile, "measures": {}},
        known | {"replicate": "[red]", "key": "\x1b"},
        known | {"measures": {"test_accuracy_at_stop": "much"}},
        {"[/red]": ["[bold]"]},
    ):
        named = type(ticket.mask)({f"[/x]{name}": kept for name, kept in ticket.mask.items()})
        start = {(f"[/x]{n}" if n in ticket.mask else n): t for n, t in ticket.start.items()}
        Ticket(named, start, provenance).save(path)
        result = tombola("ticket", "show", str(path))
        assert result.exit_code == 0, result.stderr
        assert "[/x]fc1.weight" in result.stdout
        assert "\x1b" not in result.stdout
