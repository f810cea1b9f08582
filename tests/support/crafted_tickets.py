"""Malicious ticket files with valid digests."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.support.tickets import write_version_1
from tombola.pruning.mask import Mask
from tombola.tickets.ticket import Ticket
from tombola.utils.files import read_tensors, write_tensors
from tombola.zoo.models import build
from tombola.zoo.models.description import Network, Start

Record = dict[str, Any]
Tensors = dict[str, Tensor]
LARGE = 10**9

START = Start(network=Network(name="mlp", options={"widths": [4]}, inputs=(2, 3), classes=2), seed=11)


def small_ticket() -> Ticket:
    """24 and 8 weights, a third of them left, and other values as trained weights."""
    network = build(START)
    generator = torch.Generator().manual_seed(5)
    mask = Mask({n: torch.rand(kept.shape, generator=generator) < 1 / 3 for n, kept in Mask.full(network).items()})
    mask.apply_(network)
    state = network.state_dict()
    trained = {n: (2 * t + 1) * mask[n] if n in mask else t + 1 for n, t in state.items()}
    return Ticket(mask, state, {"recipe": {"name": "tiny"}, "level": 3, "θ": [0.5, None]}, trained, drawn=START)


def base_files(folder: Path) -> dict[str, Path]:
    """Valid files of every kind."""
    ticket = small_ticket()
    ticket.save(folder / "seed", start="seed", trained="none")
    ticket.save(folder / "value", start="value", trained="none")
    ticket.save(folder / "fp32", start="seed", trained="fp32")
    ticket.save(folder / "fp16", start="seed", trained="fp16")
    ticket.save(folder / "bf16", start="value", trained="bf16")
    write_version_1(ticket, folder / "format-1")
    return {name: folder / name for name in ("seed", "value", "fp32", "fp16", "bf16", "format-1")}


def record_of(tensors: Tensors) -> Record:
    return dict(json.loads(zlib.decompress(tensors["record"].numpy().tobytes())))


def uint8(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def with_record(tensors: Tensors, record: Any) -> Tensors:
    text = record if isinstance(record, bytes) else json.dumps(record).encode()
    return tensors | {"record": uint8(zlib.compress(text))}


def bomb() -> bytes:
    """A zlib stream of a gigabyte of spaces."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    chunk = packer.compress(b" " * 2**22) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x78\xda" + chunk * 256


HOSTILE_NAMES: list[Any] = ["", "../../etc/passwd", "fc1..weight", "a" * 10**6, "a\0b", "\x1b[2J", "\ud800", None]
HOSTILE_NAMES += [["fc1.weight"], "output.weight", "fc1.bias"]  # the last two are there twice

HOSTILE_SHAPES: list[Any] = [[2**40], [2**20, 2**20], [2**33, 0], [2**25], [2**20, 0, 2**20, 2**20, 2**20], [10**400]]
HOSTILE_SHAPES += [[-1, -24], [25], [4.0, 6.0], ["4", 6], [True, 24], [1] * 100 + [24], 24, None]

HOSTILE_STARTS: dict[str, Any] = {
    "deep resnet": {"network": {"name": "resnet", "options": {"depth": 6 * LARGE + 2}}},
    "wide": {"network": {"options": {"widths": [10**7, 10**7]}}},
    "wider than a number": {"network": {"options": {"widths": [10**300]}}},
    "many layers": {"network": {"options": {"widths": [4] * 50_000}}},
    "large inputs": {"network": {"inputs": [LARGE, LARGE]}},
    "many classes": {"network": {"classes": 10**12}},
    "no classes": {"network": {"classes": -3}},
    "invalid widths": {"network": {"options": {"widths": "4"}}},
    "an unknown option": {"network": {"options": {"widths": [4], "\x1b[2J\nevil": 1}}},
    "an unknown network": {"network": {"name": "nothing\nlike it"}},
    "an import path": {"network": {"name": "os:system", "options": {"command": "touch broken-into"}}},
    "a local import path": {"network": {"name": "broken:into", "options": {}}},
    "a network of timm": {"network": {"name": "timm:resnet18", "options": {}, "source": "timm 1.0"}},
    "a wrapper": {"network": {"name": "supermask", "options": {"of": "os:system", "keep": {}}}},
    "trained weights": {"trained": {"run": "0" * 32}},
    "like an import path": {"like": {"name": "os:system", "inputs": [1], "classes": 1}},
    "like something large": {"like": {"name": "mlp", "options": {"widths": [LARGE]}, "inputs": [1], "classes": 1}},
    "an unknown part": {"pickle": "cos\nsystem"},
    "a seed of another type": {"seed": "11"},
}


def changed_start(changes: dict[str, Any]) -> Any:
    """A description with some of it changed."""
    described = START.model_dump(mode="json", exclude_defaults=True)
    network = described["network"] | changes.get("network", {})
    return described | changes | {"network": network}


def _nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def crafted_records() -> Iterator[tuple[str, str, Callable[[Record], Any]]]:
    """(description, base file, change of its record); a change returns the record, or JSON as bytes."""

    def row(index: int, value: Any) -> Callable[[Record], Any]:
        def change(record: Record) -> Record:
            record["mask"][0][index] = value
            return record

        return change

    def part(**parts: Any) -> Callable[[Record], Any]:
        return lambda record: record | parts

    for name in HOSTILE_NAMES:
        yield f"mask name {name!r:.20}", "value", row(0, name)
        yield f"state name {name!r:.20}", "value", lambda r, name=name: r | {"names": [name, *r["names"][1:]]}
    for shape in HOSTILE_SHAPES:
        yield f"shape {shape!r:.20}", "seed", row(1, shape)
    for count in (-1, 7, 25, 10**400, 8.0, "8", True):
        yield f"count {count!r:.20}", "fp32", row(2, count)
    for length in (-1, 0, 99, 10**30, 2.0):
        yield f"length {length!r:.20}", "seed", row(3, length)
    yield "lengths that cancel", "seed", lambda r: r | {"mask": [[*r["mask"][0][:3], -1], [*r["mask"][1][:3], 99]]}
    yield "a large full layer", "seed", part(mask=[["fc1.weight", [2**26], 2**26, 0]])
    yield "too many layers", "seed", part(mask=[[f"a{n}", [1], 0, 0] for n in range(10_000)])
    yield "no layers", "seed", part(mask=[])
    yield "no weights", "seed", part(mask=[["fc1.weight", [0], 0, 0]])
    for rows in (None, "mask", [[]], [["fc1.weight", [24], 3]], [3], {}):
        yield f"mask {rows!r:.20}", "seed", part(mask=rows)
    for names in (None, {}, "ab", ["fc1.weight"], ["a"] * 9):
        yield f"names {names!r:.20}", "value", part(names=names)
    for digest in (None, "", "0" * 63, 3, ["0" * 64]):
        yield f"digest {digest!r:.20}", "seed", part(start=digest)
    yield "a digest and values", "value", part(start="0" * 64)
    for precision in (None, "fp64", "fp16", "none", ["fp32"]):
        yield f"precision {precision!r:.20}", "fp32", part(trained=precision)
    for provenance in (None, [], json.loads(_nested(70))):
        yield f"provenance {provenance!r:.20}", "seed", part(provenance=provenance)
    for described in (None, "mlp", [], {}):
        yield f"description {described!r:.20}", "seed", part(drawn=described)
    for what, changes in HOSTILE_STARTS.items():
        yield what, "seed", part(drawn=changed_start(changes))
    for changes in ({"seed": 10**30}, {"seed": 12}, {"reuse": {"seed": -1}}):
        yield f"drawn by {changes}", "seed", part(drawn=changed_start(changes))
    for depth in (200, 400_000):
        text = f'{{"provenance": {_nested(depth)}}}'.encode()
        yield f"nested {depth} deep", "seed", lambda _, text=text: text
    yield "an unknown part", "seed", part(code="import os")
    yield "a missing part", "seed", lambda r: {name: value for name, value in r.items() if name != "names"}
    for text in (b"", b"\xff\xfe", b"[]", b"3", b"{", b'{"mask": NaN}', b"1" * 10_000, b'{"a": 1}' * 2):
        yield f"text {text!r:.20}", "seed", lambda _, text=text: text


def crafted_tensors() -> Iterator[tuple[str, str, Callable[[Tensors], Tensors]]]:
    """(description, base file, change of its tensors)."""

    def put(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[Tensors], Tensors]:
        return lambda tensors: tensors | {name: change(tensors[name])}

    def drop(name: str) -> Callable[[Tensors], Tensors]:
        return lambda tensors: {n: t for n, t in tensors.items() if n != name}

    for name, base in (("record", "seed"), ("mask", "seed"), ("start/fc1.weight", "value")):
        yield f"{name} too short", base, put(name, lambda t: t[:-1])
        yield f"{name} too long", base, put(name, lambda t: torch.cat([t, t[-1:]]))
        yield f"{name} empty", base, put(name, lambda t: t[:0])
        yield f"{name} of two axes", base, put(name, lambda t: t[None])
        yield f"{name} missing", base, drop(name)
    for name in ("record", "mask"):
        yield f"{name} of floats", "seed", put(name, lambda t: t.float())
        yield f"{name} of signed bytes", "seed", put(name, lambda t: t.view(torch.int8))
    for name in ("trained/fc1.weight", "trained/fc1.bias"):
        for dtype in (torch.float64, torch.bfloat16, torch.float8_e4m3fn):
            yield f"{name} of {dtype}", "fp32", put(name, lambda t, dtype=dtype: t.to(dtype))
    for name in ("extra", "start/extra", "trained/extra", "start/", "/", "", "start/../../etc", "a" * 10**6, "a\nb"):
        yield f"tensor {name!r:.20}", "value", lambda tensors, name=name: tensors | {name: torch.zeros(3)}
        yield f"old tensor {name!r:.20}", "format-1", lambda tensors, name=name: tensors | {name: torch.zeros(3)}
    for name in ("mask/fc1.weight", "shape/fc1.weight", "kept/fc1.weight"):
        yield f"{name} missing", "format-1", drop(name)
        yield f"{name} too short", "format-1", put(name, lambda t: t[:-1])
        yield f"{name} too long", "format-1", put(name, lambda t: torch.cat([t, t[-1:]]))
        yield f"{name} of doubles", "format-1", put(name, lambda t: t.double()[:, None])
    for shape in ([-4, -6], [2**40], [2**62, 4], [2**40, 0, 2**40], []):
        wrong = torch.tensor(shape, dtype=torch.int64)
        yield f"old shape {shape}", "format-1", put("shape/fc1.weight", lambda _, wrong=wrong: wrong)
    yield "old name twice", "format-1", lambda tensors: tensors | {"whole/fc1.weight": torch.zeros(3)}
    yield "old hostile name", "format-1", lambda tensors: tensors | {"whole/../../etc": torch.zeros(3)}
    yield "a bomb", "seed", lambda tensors: tensors | {"record": uint8(bomb())}
    yield "behind the record", "seed", put("record", lambda t: torch.cat([t, torch.zeros(1, dtype=torch.uint8)]))


def crafted_files(folder: Path) -> dict[str, Path]:
    """All of them by description."""
    folder.mkdir()
    base = {name: (read_tensors(path)[0], path) for name, path in base_files(folder.parent).items()}
    files: dict[str, Path] = {}

    def place(what: str) -> Path:
        files[what] = folder / f"{len(files)}.safetensors"
        return files[what]

    for what, of, change in crafted_records():
        tensors, _ = base[of]
        write_tensors(place(what), with_record(tensors, change(record_of(tensors))), {"format": 2})
    old = {"format": 1, "provenance": {}}
    for what, of, change in crafted_tensors():
        write_tensors(place(what), change(base[of][0]), old if of == "format-1" else {"format": 2})
    abouts: list[Any] = [{"format": value} for value in (0, 3, 10**3000, "2", 2.0, True, None)]
    abouts += [{}, [], "2", *({"format": 1, "provenance": value} for value in (None, [], json.loads(_nested(70))))]
    for about in abouts:
        write_tensors(place(f"about {about!r:.30}"), base["seed"][0], about)
    good = base["value"][1].read_bytes()
    place("nothing").write_bytes(b"")
    place("a header and nothing").write_bytes(good[:8])
    place("a header of a gigabyte").write_bytes((2**30).to_bytes(8, "little") + good[8:])
    place("a header beyond 63 bits").write_bytes(b"\xff" * 8 + good[8:])
    place("behind the end").write_bytes(good + b"\0" * 8)
    place("text").write_text("Lottery tickets")
    with place("10 GB of nothing").open("wb") as file:
        file.write(good)
        file.truncate(10 * 10**9)
    header = b'{"a": ' + b"[" * 10**6
    place("a deep header").write_bytes(len(header).to_bytes(8, "little") + header)
    header = b" " * 2**25
    place("a blank header").write_bytes(len(header).to_bytes(8, "little") + header)
    return files
