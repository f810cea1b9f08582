"""Exports of networks of Hugging Face's library: token ids, several inputs, outputs of its own classes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.digits_tickets import ticket_of
from tests.support.hugging_face_networks import CASES, Case, case
from tombola.exports.compaction import compact
from tombola.exports.examples import Examples
from tombola.exports.export import export
from tombola.exports.int8 import quantise
from tombola.exports.onnx_file import read_onnx, write_onnx
from tombola.exports.torch_export import read_exported, write_exported
from tombola.pruning.prune_model import prune
from tombola.utils.model_inputs import call, rows, tensors

STRUCTURES = {
    **{"bert": "heads", "bert_features": "neurons", "gpt2": "neurons", "vit": "heads"},
    **{"resnet": "channels", "mobilenet": "channels"},
}
"""What half is pruned of, in each of the `CASES`."""


@cache
def compacted(name: str) -> Case:
    """One of the `CASES`, without half of its units; not to be changed."""
    network, x, outputs = case(name)
    prune(network, 0.5, structure=STRUCTURES[name], example=x)
    smaller = compact(network, x)
    before, after = (sum(p.numel() for p in each.parameters()) for each in (network, smaller))
    assert after < 0.95 * before
    return smaller, x, outputs


def largest_difference(network: Any, other: Any, x: Any) -> float:
    """Of any output for one, two and all of the examples, relative to the largest."""
    found = 0.0
    for batch in (rows(x, [0]), rows(x, [1, 0]), x):
        with torch.no_grad():
            ours, theirs = ([*tensors(call(each, batch))] for each in (network, other))
        assert [each.shape for each in ours] == [each.shape for each in theirs]
        found = max(
            found, *((a - b).abs().max().item() / b.abs().max().item() for a, b in zip(theirs, ours, strict=True))
        )
    return found


@pytest.mark.parametrize("name", CASES)
def test_exported_programs_agree_and_return_plain_dicts(tmp_path: Path, name: str) -> None:
    network, x, outputs = compacted(name)
    write_exported(network, x, tmp_path / "net.pt2")
    read = read_exported(tmp_path / "net.pt2")
    returned = call(read, x)
    assert type(returned) is dict  # so the file can be read without that library
    assert [*returned] == outputs
    assert largest_difference(network, read, x) < 1e-5


@pytest.mark.usefixtures("quick_export")
def test_a_ticket_of_token_ids_is_exported_without_its_pruned_neurons(tmp_path: Path) -> None:
    network, x, _ = case("gpt2")
    kinds = ["compact", "exported", "csr", "int8"]
    examples = Examples(x)
    ticket = ticket_of(network, prune(network, 0.5, structure="neurons", example=x))
    exported = export(ticket, tmp_path, kinds=kinds, strict=True, network=network, examples=examples, turns=1)
    dense, smaller, program, csr, int8 = exported.figures
    assert dense.weights == ticket.mask.size
    assert smaller.weights == program.weights == int8.weights == ticket.mask.count < ticket.mask.size
    assert csr.weights == ticket.mask.size + 30 * 8  # its own layers densely, and the head, which is the embedding
    assert int8.note.startswith("dynamic ")  # no data to calibrate with were given
    assert 0 < int8.difference < 0.1
    assert smaller.difference is not None
    assert smaller.difference < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_onnx_files_agree_with_and_without_int8(tmp_path: Path, name: str) -> None:
    network, x, outputs = compacted(name)
    write_onnx(network, x, tmp_path / "net.onnx")
    read = read_onnx(tmp_path / "net.onnx")
    if len(outputs) > 1:
        assert [*call(read, x)] == outputs
    assert largest_difference(network, read, x) < 1e-5
    for calibration in (Examples(x), None):
        quantise(tmp_path / "net.onnx", tmp_path / "int8.onnx", x, calibration)
        assert 0 < largest_difference(network, read_onnx(tmp_path / "int8.onnx"), x) < 0.2
