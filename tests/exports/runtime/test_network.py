from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.exports.networks import Residual, randomise, sparsify
from tests.exports.runtime.helpers import BATCHES, assert_close, batch, bits, compiled, plannable, scale_of, wanted
from tests.exports.runtime.test_program import damaged, programs
from tombola.exports.graph import Untraceable
from tombola.exports.runtime import network as module
from tombola.exports.runtime.network import FORMAT, SparseNetwork, sparse_network
from tombola.exports.runtime.plan import Unplannable
from tombola.utils.errors import DamagedFile, InputError
from tombola.utils.files import read_tensors, write_tensors

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")  # torch's, of even kernels

EXAMPLE = torch.ones(1, 2, 8, 7)


def dense_network(seed: int = 0) -> nn.Module:
    """Of images, with every kind of step."""
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6))
    network = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), Residual(body, nn.Identity()), nn.MaxPool2d(3, 2, 1),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(24, 5),
    )  # fmt: skip
    sparsify(randomise(network), 0.5, seed=1)
    return network.eval()


def runtime(threads: int = 1, dense: bool = False, seed: int = 0) -> SparseNetwork:
    return SparseNetwork(compiled(dense_network(seed), EXAMPLE, dense), threads)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has threads woken for however little work."""
    monkeypatch.setattr(module, "ALONE", 1)


@settings(deadline=None, max_examples=25)
@given(plannable(), st.sampled_from([1, 3]), st.booleans())
def test_answers_do_not_depend_on_what_was_computed_before(
    made: tuple[nn.Module, Tensor], threads: int, dense: bool
) -> None:
    network, example = made
    program = compiled(network, example, dense)
    used, x = SparseNetwork(program, threads), batch(example, 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ALONE", 1)
        for bad in (3e38, float("nan"), float("inf"), float("-inf")):
            used(torch.full_like(x[:64], bad))
            for images in (1, 17, 64, 1, 100, 2):
                assert bits(used(x[:images])) == bits(SparseNetwork(program, threads)(x[:images]))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_share_the_examples(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    network, parts, there = runtime(threads), [], threading.Barrier(threads, timeout=20)
    own = network._run

    def noted(examples: Any, begin: int, end: int, answers: Any) -> None:
        there.wait()  # all of them are at work at once
        parts.append((begin, end, threading.get_ident()))
        own(examples, begin, end, answers)

    monkeypatch.setattr(network, "_run", noted)
    network(batch(EXAMPLE, 10))
    assert len({thread for *_, thread in parts}) == len(parts) == threads
    assert sorted(image for begin, end, _ in parts for image in range(begin, end)) == list(range(10))


@pytest.mark.parametrize("threads", [0, -1, 2.5, "2", True])
def test_a_number_of_threads_that_is_none_is_refused(threads: Any) -> None:
    with pytest.raises(InputError, match="threads: should be a whole number of at least 1, not"):
        runtime(threads)


def test_complex_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="real numbers"):
        runtime()(batch(EXAMPLE, 3).to(torch.complex64))


def test_working_space_is_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    network = runtime()
    network(batch(EXAMPLE, 100))
    assert network.working(100) == sum(room.nbytes for room in network._rooms) == network.room * 16 * 4
    assert network.working(1) == network.room * 4
    monkeypatch.setattr("tombola.exports.runtime.network.ALONE", 1)
    assert runtime(threads=2).working(100) == 2 * network.room * 16 * 4


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_one_example_and_little_work_wake_no_thread(threads: int) -> None:
    network = runtime(threads)
    for images in (1, 2):
        network(batch(EXAMPLE, images))
    assert network._pool is None


def test_as_many_threads_as_torch_uses() -> None:
    assert SparseNetwork(programs()[0]).threads == torch.get_num_threads()


@pytest.mark.usefixtures("eager")
def test_many_threads_may_call_it_at_once() -> None:
    network, x = runtime(threads=2), batch(EXAMPLE, 100)
    alone = {images: bits(network(x[:images])) for images in BATCHES}
    with ThreadPoolExecutor(4) as callers:
        calls = [(images, callers.submit(network, x[:images])) for _ in range(10) for images in BATCHES]
        for images, call in calls:
            assert bits(call.result()) == alone[images]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("threads", [1, 2])
def test_no_examples_have_no_answers(threads: int) -> None:
    assert runtime(threads)(torch.ones(0, 2, 8, 7)).shape == (0, 5)


@pytest.mark.parametrize("shape", [(2, 8, 7), (1, 2, 7, 8), (1, 112), (1, 2, 8, 7, 1)])
def test_examples_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes examples of shape \(2, 8, 7\), not"):
        runtime()(torch.ones(shape))


def test_examples_can_be_of_any_type_and_stride() -> None:
    network, x = runtime(), batch(EXAMPLE, 20)
    answers = bits(network(x))
    for same in (
        x.double(),
        x.clone().requires_grad_(),
        x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
        x.to(memory_format=torch.channels_last),
        torch.stack([x, x], -1)[..., 0],
    ):
        assert bits(network(same)) == answers
    short = x.bfloat16()
    assert bits(network(short)) == bits(network(short.float()))
    assert bits(network(x.to(torch.int32))) == bits(network(x.trunc()))


def test_examples_and_answers_are_left_alone() -> None:
    network, x = runtime(), batch(EXAMPLE, 20)
    before, first = x.clone(), network(x)
    kept = first.clone()
    network(-x)
    assert torch.equal(x, before)
    assert torch.equal(first, kept)
    assert not first.requires_grad


def test_it_says_what_it_is() -> None:
    text = str(runtime())
    assert f"{runtime().weights:,} weights, 7 steps, (2, 8, 7) -> (5,)" in text
    left = sum(int(layer.weight.count_nonzero()) for layer in dense_network().modules() if hasattr(layer, "weight"))
    pooled, norm = 6 * 4, 6
    assert runtime().weights == left - norm + pooled


def copies(network: SparseNetwork, tmp_path: Path) -> dict[str, SparseNetwork]:
    """In every way to get another that is the same."""
    whole, state = io.BytesIO(), io.BytesIO()
    torch.save(network, whole)
    torch.save(network.state_dict(), state)
    network.save(tmp_path / "a" / "net.safetensors", {"name": "a"})
    other = SparseNetwork(compiled(dense_network(), EXAMPLE), network.threads)
    for buffer in (other.values, other.biases):
        assert isinstance(buffer, Tensor)
        buffer.zero_()
    other.load_state_dict(torch.load(io.BytesIO(state.getvalue()), weights_only=True))
    return {
        "deepcopy": copy.deepcopy(network),
        "copy": copy.copy(network),
        "pickle": pickle.loads(pickle.dumps(network)),
        "torch.save": torch.load(io.BytesIO(whole.getvalue()), weights_only=False),
        "state_dict": other,
        "save": SparseNetwork.load(tmp_path / "a" / "net.safetensors", network.threads),
        "float": copy.deepcopy(network).float().to("cpu").cpu().to(torch.float32).eval(),
        "shared": copy.deepcopy(network).share_memory(),
    }


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("threads", [1, 2])
def test_copies_give_the_same_bits(tmp_path: Path, threads: int) -> None:
    network, x = runtime(threads), batch(EXAMPLE, 33)
    answers = bits(network(x)), bits(network(x[:1]))
    for way, other in copies(network, tmp_path).items():
        assert (bits(other(x)), bits(other(x[:1]))) == answers, way
        assert other.threads == threads
        assert type(other) is SparseNetwork
        assert other.state_dict().keys() == network.state_dict().keys()


def test_a_copy_is_another() -> None:
    network, x = runtime(), batch(EXAMPLE, 3)
    answers, other = bits(network(x)), copy.deepcopy(network)
    other.get_buffer("values").mul_(2)
    assert bits(network(x)) == answers != bits(other(x))


def test_it_works_as_a_part_of_another_module(tmp_path: Path) -> None:
    network, x = runtime(), batch(EXAMPLE, 17)
    outer = nn.Sequential(network, nn.Softmax(1))
    torch.save(outer.state_dict(), tmp_path / "state.pt")
    other = nn.Sequential(runtime(), nn.Softmax(1))
    other[0].get_buffer("biases").zero_()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    with torch.inference_mode():
        assert bits(other(x)) == bits(torch.softmax(network(x), 1))
    assert list(outer.parameters()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda network: network.half(),
        lambda network: network.double(),
        lambda network: network.bfloat16(),
        lambda network: network.to("meta"),
        lambda network: network.to(torch.float64),
        lambda network: network.type(torch.float32),  # the table as well
        lambda network: nn.Sequential(network).half(),
    ],
)
def test_other_types_and_devices_are_refused(change: Any) -> None:
    network, x = runtime(), batch(EXAMPLE, 3)
    answers = bits(network(x))
    with pytest.raises(ValueError, match="float32 on the CPU, and nowhere else"):
        change(network)
    assert bits(network(x)) == answers


@pytest.mark.parametrize("name", ["table", "columns", "bounds", "places", "runs"])
@pytest.mark.parametrize("assign", [False, True])
def test_a_state_that_is_no_program_is_refused_and_never_run(name: str, assign: bool) -> None:
    network = runtime()
    state = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    state[name] += 100_000
    with pytest.raises(DamagedFile):
        network.load_state_dict(state, assign=assign)
    with pytest.raises(DamagedFile, match="load it again"):
        network(EXAMPLE)
    network.load_state_dict(runtime().state_dict())
    assert bits(network(EXAMPLE)) == bits(runtime()(EXAMPLE))


def test_a_state_of_another_type_is_refused() -> None:
    network = runtime()
    state = {name: tensor.double() for name, tensor in network.state_dict().items()}
    with pytest.raises(DamagedFile, match="not of the right kind"):
        network.load_state_dict(state, assign=True)


def test_a_state_of_other_sizes_is_refused() -> None:
    network = runtime()
    with pytest.raises(RuntimeError, match="size mismatch"):
        network.load_state_dict(SparseNetwork(programs()[3]).state_dict())


def test_a_program_that_is_none_makes_no_network() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(DamagedFile):  # noqa: PT012 - most are
        for _ in range(50):
            SparseNetwork(damaged(rng))


def test_a_file_says_what_it_is_about(tmp_path: Path) -> None:
    network = runtime()
    network.save(tmp_path / "net", {"ticket": [1, "two"]})
    tensors, header = read_tensors(tmp_path / "net")
    assert tensors.keys() == network.state_dict().keys()
    assert header["about"] == {"ticket": [1, "two"]}
    assert (header["format"], header["inputs"], header["outputs"]) == (FORMAT, [2, 8, 7], [5])


@pytest.mark.parametrize("network", [nn.Flatten(), nn.MaxPool2d(2), nn.Sequential(nn.Flatten(), nn.Linear(112, 3))])
def test_programs_with_empty_arrays_can_be_saved(tmp_path: Path, network: nn.Module) -> None:
    made, x = SparseNetwork(compiled(network, EXAMPLE, True)), batch(EXAMPLE, 17)
    made.save(tmp_path / "net")
    assert bits(SparseNetwork.load(tmp_path / "net")(x)) == bits(made(x))


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, 1000, -1000, -100, -9, -1])
def test_truncated_files_are_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "net"
    runtime().save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="net cannot be read"):
        SparseNetwork.load(path)


@pytest.mark.parametrize("part", range(20))
def test_files_with_a_wrong_bit_are_refused(tmp_path: Path, part: int) -> None:
    path = tmp_path / "net"
    runtime().save(path)
    content = bytearray(path.read_bytes())
    content[part * (len(content) - 1) // 19] ^= 1 << part % 8
    path.write_bytes(content)
    with pytest.raises(InputError, match="net cannot be read"):
        SparseNetwork.load(path)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1))
def test_files_with_a_right_digest_are_refused_or_answer(tmp_path: Path, seed: int) -> None:
    path, program = tmp_path / "net", damaged(np.random.default_rng(seed))
    header = {"format": FORMAT, "inputs": program.inputs, "outputs": program.outputs, "room": program.room}
    if program.arrays["runs"].dtype.isnative and program.room < 10_000:
        arrays = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in program.arrays.items()}
        write_tensors(path, {name: torch.from_numpy(array) for name, array in arrays.items()}, header)
        try:
            network = SparseNetwork.load(path)
        except InputError:
            return
        assert network(torch.ones(3, *program.inputs)).shape == (3, *program.outputs)


HEADERS: list[dict[str, Any]] = [
    {"format": 2}, {"format": None}, {"room": None}, {"room": "9"}, {"room": 9.0}, {"room": True}, {"room": [9]},
    {"inputs": 5}, {"inputs": ["5"]}, {"inputs": [5.0]}, {"inputs": [[5]]}, {"inputs": None}, {"outputs": {}},
    {"outputs": [None]}, {"outputs": [2**80]}, {"inputs": [10**400]}, {"inputs": [4]}, {"room": 2**62},
]  # fmt: skip


@pytest.mark.parametrize("change", HEADERS)
def test_headers_that_make_no_sense_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    network = SparseNetwork(programs()[0])
    header = {"format": FORMAT, "inputs": [5], "outputs": [3], "room": network.room}
    write_tensors(tmp_path / "net", network.state_dict(), header)
    assert SparseNetwork.load(tmp_path / "net").inputs == (5,)
    write_tensors(tmp_path / "net", network.state_dict(), header | change)
    with pytest.raises(InputError, match="cannot be read"):
        SparseNetwork.load(tmp_path / "net")


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64, torch.int8, torch.bool, torch.float8_e4m3fn])
@pytest.mark.parametrize("name", ["table", "values"])
def test_tensors_of_other_types_are_refused(tmp_path: Path, name: str, kind: torch.dtype) -> None:
    state = SparseNetwork(programs()[0]).state_dict()
    header = {"format": FORMAT, "inputs": [5], "outputs": [3], "room": programs()[0].room}
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
    with pytest.raises(InputError, match="other tensors than a program"):
        SparseNetwork.load(tmp_path / "net")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*net"):
        SparseNetwork.load(tmp_path / "net")


def test_other_files_of_ours_are_no_network(tmp_path: Path) -> None:
    write_tensors(tmp_path / "ticket", {"values": torch.ones(3)}, {"format": 7})
    with pytest.raises(InputError, match="not a sparse network of a format this version reads"):
        SparseNetwork.load(tmp_path / "ticket")


PROCESS = """
    import os, sys
    import torch
    from tombola.exports.runtime import network as module

    module.ALONE = 1
    network, x = module.SparseNetwork.load(sys.argv[1], threads=2), torch.load(sys.argv[2])
    answers = network(x)
    torch.save(answers, sys.argv[3])
    child = os.fork() if hasattr(os, "fork") else None
    if child == 0:  # has none of the threads that there were
        os._exit(0 if torch.equal(network(x), answers) else 1)
    if child is not None:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.usefixtures("eager")
def test_another_process_and_its_fork_give_the_same_bits(tmp_path: Path) -> None:
    network, x = runtime(threads=2), batch(EXAMPLE, 33)
    network.save(tmp_path / "net")
    torch.save(x, tmp_path / "x")
    arguments = [str(tmp_path / name) for name in ("net", "x", "answers")]
    subprocess.run([sys.executable, "-c", textwrap.dedent(PROCESS), *arguments], check=True, timeout=120)
    assert bits(torch.load(tmp_path / "answers")) == bits(network(x))


def test_of_a_network_it_computes_the_same() -> None:
    network = dense_network()
    made, x = sparse_network(network, EXAMPLE), batch(EXAMPLE, 20)
    assert_close(made(x), wanted(network, x), scale_of(network, x))


def test_what_cannot_be_a_program_raises() -> None:
    with pytest.raises(Unplannable):
        sparse_network(nn.Sequential(nn.Linear(3, 3), nn.GELU()), torch.ones(1, 3))

    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(Untraceable):
        sparse_network(Branching(), torch.ones(1, 3))
