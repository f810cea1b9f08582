"""Networks that lose coupled units, compacted, beside the dense ones: speed by ONNX Runtime and PyTorch. Weights are
not trained: speed does not depend on their values."""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import median, take_turns
from tombola.exports.benchmark import count_multiply_adds
from tombola.exports.compaction import compact
from tombola.exports.onnx_file import read_onnx, write_onnx
from tombola.pruning.prune_model import prune
from tombola.zoo.models import MODELS


@dataclass(frozen=True)
class Structured:
    """A network, what it loses, and by how many times it should be faster."""

    name: str
    network: nn.Module
    example: Tensor
    structures: Sequence[str]
    """Of each of them half is pruned."""
    cost: str
    round_to: int
    wanted: float


def cases() -> list[Structured]:
    """Half of a ResNet-20's multiply-adds for batches of 64, in multiples of 16 channels, which ONNX Runtime computes
    together with AVX-512; half the heads and hidden units of a transformer for one sequence."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(256, 8, 1024, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    resnet, images = MODELS["resnet-20"]((3, 32, 32), 10), torch.randn(64, 3, 32, 32)
    name = "4-layer encoder, heads and neurons, batch 1"
    return [
        Structured("ResNet-20, channels, batch 64", resnet, images, ["channels"], "macs", 16, 1.8),
        Structured(name, encoder, torch.randn(1, 32, 256), ["heads", "neurons"], "units", 1, 1.7),
    ]


def measure_structured(turns: int, threads: Sequence[int] = (1,)) -> list[dict[str, Any]]:
    """Parameters, multiply-adds, the difference of outputs, and how many times as fast the compact network is."""
    rows = []
    for case in cases():
        pruned, x = case.network.eval(), case.example
        dense = _onnx(pruned, x, threads)
        before = count_multiply_adds(pruned, x)
        parameters = sum(each.numel() for each in pruned.parameters())
        reference = copy.deepcopy(pruned)
        for structure in case.structures:
            prune(pruned, 0.5, structure=structure, cost=case.cost, round_to=case.round_to, example=x)
        smaller = compact(pruned, x)
        with torch.inference_mode():
            expected = pruned(x)
            off = ((smaller(x) - expected).abs().max() / expected.abs().max()).item()
            ratios = {"PyTorch": _ratio({"dense": reference, "compact": smaller}, x, turns)}
            for count, run in _onnx(smaller, x, threads).items():
                ratios[f"ONNX Runtime, {count}"] = _ratio({"dense": dense[count], "compact": run}, x, turns)
        rows.append(
            {
                "network": case.name,
                "off": off,
                "parameters": parameters,
                "left": sum(each.numel() for each in smaller.parameters()),
                "multiply_adds_left": count_multiply_adds(smaller, x) / before,
                "ratios": ratios,
                "wanted": case.wanted,
            }
        )
    return rows


def _onnx(network: nn.Module, x: Tensor, threads: Sequence[int]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        write_onnx(network, x[:2] if len(x) > 1 else x, path, {})
        return {f"{count} threads": read_onnx(path, count) for count in threads}


def _ratio(sides: dict[str, Any], x: Tensor, turns: int) -> float:
    seconds = take_turns({name: functools.partial(call, x) for name, call in sides.items()}, turns)
    return median(seconds["dense"]) / median(seconds["compact"])
