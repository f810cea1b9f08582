"""The examples, tables and file formats of pages in docs/."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.outcomes import random_mask
from tests.support.tickets import trained_ticket
from tests.support.zoo_networks import CIFAR, MNIST, build_network
from tombola.pruning.hold import release
from tombola.pruning.mask import Mask
from tombola.pruning.scopes import SCOPES
from tombola.pruning.scores import SCORES
from tombola.pruning.structures import STRUCTURES
from tombola.runs.run import Run
from tombola.tickets.ticket import Ticket
from tombola.zoo.models import MODELS, build


def page(name: str) -> str:
    (file,) = (Path(__file__).parents[2] / "docs").glob(f"*/{name}.md")
    return file.read_text(encoding="utf-8")


def examples(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page(name), re.M | re.S)


def test_every_score_scope_and_structure_is_on_the_pruning_page() -> None:
    names = set(re.findall(r"^\| `([^`]+)` \|", page("pruning"), re.M))
    assert {*SCORES, *SCOPES, *STRUCTURES, "2:4", "blocks:4x4"} == names


def test_the_examples_of_the_pruning_page_run() -> None:
    assert len(examples("pruning")) == 8
    names: dict[str, Any] = {}
    for block in examples("pruning"):
        exec(block, names)
        if "hold" in names:
            release(names["network"])  # the next examples prune it again


def test_the_examples_of_the_language_models_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec("".join(examples("language-models")), names)
    for base, finetuned in zip(names["base"].parameters(), names["model"].parameters(), strict=True):
        torch.testing.assert_close(base, finetuned)


def test_files_of_the_exports_page_are_written_and_read_in_a_fresh_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX is read first, without torch."""
    monkeypatch.chdir(tmp_path)
    exec("".join(block for block in examples("exports") if "write_" in block), {})
    files = {"net.npz", "net.onnx", "net-int8.onnx", "net.pt2", "net.safetensors"}
    assert {file.name for file in tmp_path.iterdir()} == files
    onnx, *others = (block for block in examples("exports") if "write_" not in block)
    code = "\n".join([onnx, "import sys", "assert 'torch' not in sys.modules", *others])
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


ROWS = re.findall(
    r"^\| `([\w-]+)`(?:, depth (\d+))? \| (\S+) \| ([\d,]+) \| ([\d,]+|–) \| ([\d,]+) \|", page("networks"), re.M
)


@pytest.mark.parametrize(("name", "depth", "inputs", "all_weights", "conv", "all_parameters"), ROWS)
def test_numbers_on_the_networks_page_are_right(
    name: str, depth: str, inputs: str, all_weights: str, conv: str, all_parameters: str
) -> None:
    shape = {"28×28": MNIST, "3×32×32": CIFAR, "3×224×224": (3, 224, 224)}[inputs]
    network = build_network(name, inputs=shape, **({"depth": int(depth)} if depth else {}))
    convolutions = sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d))
    assert f"{Mask.full(network).size:,}" == all_weights
    assert (f"{convolutions:,}" if convolutions else "–") == conv
    assert f"{sum(p.numel() for p in network.parameters()):,}" == all_parameters


def test_every_network_is_on_the_networks_page() -> None:
    assert {row[0] for row in ROWS} == set(MODELS) - {"mlp"}
    assert "`mlp`" in page("networks")


def test_the_documented_reader_reads_masks(dense: Run, tmp_path: Path) -> None:
    code = next(block for block in examples("ticket-file") if "def read_masks" in block)
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


def test_the_digest_is_computed_as_documented(dense: Run, tmp_path: Path) -> None:
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
