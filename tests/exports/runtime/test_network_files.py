from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.runtime_networks import EXAMPLE, batch, bits, program_for, programs, runtime
from tombola.exports.runtime.network import FORMAT, SparseNetwork
from tombola.utils.errors import InputError
from tombola.utils.files import read_tensors, write_tensors


def test_a_file_has_shapes_and_metadata(tmp_path: Path) -> None:
    network = runtime()
    network.save(tmp_path / "net", {"ticket": [1, "two"]})
    tensors, header = read_tensors(tmp_path / "net")
    assert tensors.keys() == network.state_dict().keys()
    assert header["about"] == {"ticket": [1, "two"]}
    assert (header["format"], header["inputs"], header["outputs"]) == (FORMAT, [2, 8, 7], [5])


@pytest.mark.parametrize("network", [nn.Flatten(), nn.MaxPool2d(2), nn.Sequential(nn.Flatten(), nn.Linear(112, 3))])
def test_programs_with_empty_arrays_can_be_saved(tmp_path: Path, network: nn.Module) -> None:
    made, x = SparseNetwork(program_for(network, EXAMPLE, True)), batch(EXAMPLE, 17)
    made.save(tmp_path / "net")
    assert bits(SparseNetwork.load(tmp_path / "net")(x)) == bits(made(x))


def test_truncated_files_and_those_with_a_wrong_bit_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "net"
    runtime().save(path)
    saved = path.read_bytes()
    damaged = [bytearray(saved[:kept]) for kept in (0, 1, 7, 8, 100, 1000, -1000, -100, -9, -1)]
    for part in range(20):
        damaged.append(bytearray(saved))
        damaged[-1][part * (len(saved) - 1) // 19] ^= 1 << part % 8
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(InputError, match="net cannot be read"):
            SparseNetwork.load(path)


HEADERS: list[dict[str, Any]] = [
    {"format": 2}, {"format": None}, {"room": None}, {"room": "9"}, {"room": 9.0}, {"room": True}, {"room": [9]},
    {"inputs": 5}, {"inputs": ["5"]}, {"inputs": [5.0]}, {"inputs": [[5]]}, {"inputs": None}, {"outputs": {}},
    {"outputs": [None]}, {"outputs": [2**80]}, {"inputs": [10**400]}, {"inputs": [4]}, {"room": 2**62},
]  # fmt: skip


@pytest.mark.parametrize("change", HEADERS)
def test_invalid_headers_are_an_error(tmp_path: Path, change: dict[str, Any]) -> None:
    network = SparseNetwork(programs()[0])
    header = {"format": FORMAT, "inputs": [5], "outputs": [3], "room": network.workspace}
    write_tensors(tmp_path / "net", network.state_dict(), header)
    assert SparseNetwork.load(tmp_path / "net").inputs == (5,)
    write_tensors(tmp_path / "net", network.state_dict(), header | change)
    with pytest.raises(InputError, match="cannot be read"):
        SparseNetwork.load(tmp_path / "net")


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64, torch.int8, torch.bool, torch.float8_e4m3fn])
@pytest.mark.parametrize("name", ["table", "values"])
def test_tensors_of_other_types_are_an_error(tmp_path: Path, name: str, kind: torch.dtype) -> None:
    state = SparseNetwork(programs()[0]).state_dict()
    header = {"format": FORMAT, "inputs": [5], "outputs": [3], "room": programs()[0].workspace}
    for changed in (
        {name: state[name].to(kind)},
        {"more": state[name].clone()},
        {name: state[name].reshape(1, -1, 1)},
    ):
        write_tensors(tmp_path / "net", {**state, **changed}, header)
        with pytest.raises(InputError, match="cannot be read"):
            SparseNetwork.load(tmp_path / "net")
    del state[name]
    write_tensors(tmp_path / "net", state, header)
    with pytest.raises(InputError, match="its tensors"):
        SparseNetwork.load(tmp_path / "net")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        SparseNetwork.load(tmp_path / "net")


PROCESS = """
    import os, sys
    import torch
    from tombola.exports.runtime import network as module

    module.MIN_WORK_PER_THREAD = 1
    network, x = module.SparseNetwork.load(sys.argv[1], threads=2), torch.load(sys.argv[2])
    answers = network(x)
    torch.save(answers, sys.argv[3])
    child = os.fork() if hasattr(os, "fork") else None
    if child == 0:  # threads do not survive a fork
        os._exit(0 if torch.equal(network(x), answers) else 1)
    if child is not None:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.usefixtures("always_parallel")
def test_another_process_and_its_fork_give_the_same_bits(tmp_path: Path) -> None:
    network, x = runtime(threads=2), batch(EXAMPLE, 33)
    network.save(tmp_path / "net")
    torch.save(x, tmp_path / "x")
    arguments = [str(tmp_path / name) for name in ("net", "x", "answers")]
    subprocess.run([sys.executable, "-c", textwrap.dedent(PROCESS), *arguments], check=True, timeout=120)
    assert bits(torch.load(tmp_path / "answers")) == bits(network(x))
