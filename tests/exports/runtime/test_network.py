from __future__ import annotations

import copy
import io
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.support.runtime_networks import (
    BATCHES,
    EXAMPLE,
    batch,
    bits,
    dense_network,
    program_for,
    programs,
    runtime,
    supported_networks,
)
from tombola.exports.runtime import network as module
from tombola.exports.runtime.network import SparseNetwork, sparse_network
from tombola.kernels.plans.plan import UnsupportedNetwork
from tombola.kernels.plans.steps import TracingError
from tombola.utils.errors import DamagedFile, InputError

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")  # torch's, of even kernels


@settings(deadline=None, max_examples=12)
@given(supported_networks(), st.sampled_from([1, 3]), st.booleans())
def test_outputs_do_not_depend_on_earlier_calls(made: tuple[nn.Module, Tensor], threads: int, dense: bool) -> None:
    network, example = made
    program = program_for(network, example, dense)
    used, x = SparseNetwork(program, threads), batch(example, 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MIN_WORK_PER_THREAD", 1)
        fresh = {images: bits(SparseNetwork(program, threads)(x[:images])) for images in (1, 2, 17, 64, 100)}
        for bad in (3e38, float("nan"), float("inf"), float("-inf")):
            used(torch.full_like(x[:64], bad))
            for images in (1, 17, 64, 1, 100, 2):
                assert bits(used(x[:images])) == fresh[images]


@pytest.mark.usefixtures("always_parallel")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_share_the_examples(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    network, parts, barrier = runtime(threads), [], threading.Barrier(threads, timeout=20)
    own = network._run

    def noted(examples: Any, begin: int, end: int, answers: Any) -> None:
        barrier.wait()  # passes only if all threads run at once
        parts.append((begin, end, threading.get_ident()))
        own(examples, begin, end, answers)

    monkeypatch.setattr(network, "_run", noted)
    network(batch(EXAMPLE, 10))
    assert len({thread for *_, thread in parts}) == len(parts) == threads
    assert sorted(image for begin, end, _ in parts for image in range(begin, end)) == list(range(10))


@pytest.mark.parametrize("threads", [0, -1, 2.5, "2", True])
def test_an_invalid_number_of_threads_is_an_error(threads: Any) -> None:
    with pytest.raises(InputError, match="threads"):
        runtime(threads)


def test_complex_numbers_are_an_error() -> None:
    with pytest.raises(ValueError, match="real numbers"):
        runtime()(batch(EXAMPLE, 3).to(torch.complex64))


def test_the_workspace_is_kept_between_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    network = runtime()
    network(batch(EXAMPLE, 100))
    assert network.working(100) == sum(each.nbytes for each in network._workspaces) == network.workspace * 16 * 4
    assert network.working(1) == network.workspace * 4
    monkeypatch.setattr("tombola.exports.runtime.network.MIN_WORK_PER_THREAD", 1)
    assert runtime(threads=2).working(100) == 2 * network.workspace * 16 * 4


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_no_thread_is_woken_for_little_work(threads: int) -> None:
    network = runtime(threads)
    for images in (1, 2):
        network(batch(EXAMPLE, images))
    assert network._pool is None


def test_the_default_number_of_threads_is_that_of_torch() -> None:
    assert SparseNetwork(programs()[0]).threads == torch.get_num_threads()


@pytest.mark.usefixtures("always_parallel")
def test_it_can_be_called_from_several_threads() -> None:
    network, x = runtime(threads=2), batch(EXAMPLE, 100)
    alone = {images: bits(network(x[:images])) for images in BATCHES}
    with ThreadPoolExecutor(4) as callers:
        calls = [(images, callers.submit(network, x[:images])) for _ in range(10) for images in BATCHES]
        for images, call in calls:
            assert bits(call.result()) == alone[images]


@pytest.mark.usefixtures("always_parallel")
@pytest.mark.parametrize("threads", [1, 2])
def test_an_empty_batch_has_empty_outputs(threads: int) -> None:
    assert runtime(threads)(torch.ones(0, 2, 8, 7)).shape == (0, 5)


@pytest.mark.parametrize("shape", [(2, 8, 7), (1, 2, 7, 8), (1, 112), (1, 2, 8, 7, 1)])
def test_examples_of_another_shape_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(2, 8, 7\)"):
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


def test_examples_and_earlier_outputs_do_not_change() -> None:
    network, x = runtime(), batch(EXAMPLE, 20)
    before, first = x.clone(), network(x)
    kept = first.clone()
    network(-x)
    assert torch.equal(x, before)
    assert torch.equal(first, kept)
    assert not first.requires_grad


def test_its_repr_has_sizes() -> None:
    text = str(runtime())
    assert f"{runtime().weights:,} weights, 7 steps, (2, 8, 7) -> (5,)" in text
    left = sum(int(layer.weight.count_nonzero()) for layer in dense_network().modules() if hasattr(layer, "weight"))
    pooled, norm = 6 * 4, 6
    assert runtime().weights == left - norm + pooled


def test_unsupported_networks_are_an_error() -> None:
    with pytest.raises(UnsupportedNetwork):
        sparse_network(nn.Sequential(nn.Linear(3, 3), nn.GELU()), torch.ones(1, 3))

    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(TracingError):
        sparse_network(Branching(), torch.ones(1, 3))


def copies(network: SparseNetwork, tmp_path: Path) -> dict[str, SparseNetwork]:
    """Copies of the network, made in all possible ways."""
    whole, state = io.BytesIO(), io.BytesIO()
    torch.save(network, whole)
    torch.save(network.state_dict(), state)
    network.save(tmp_path / "a" / "net.safetensors", {"name": "a"})
    other = SparseNetwork(program_for(dense_network(), EXAMPLE), network.threads)
    for buffer in (other.values, other.biases):
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


@pytest.mark.usefixtures("always_parallel")
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


def test_it_can_be_part_of_another_module(tmp_path: Path) -> None:
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
        lambda network: network.type(torch.float32),  # would convert the table, too
        lambda network: nn.Sequential(network).half(),
    ],
)
def test_other_types_and_devices_are_an_error(change: Any) -> None:
    network, x = runtime(), batch(EXAMPLE, 3)
    answers = bits(network(x))
    with pytest.raises(ValueError, match="float32 on the CPU"):
        change(network)
    assert bits(network(x)) == answers


@pytest.mark.parametrize("name", ["table", "columns", "bounds", "places", "runs"])
@pytest.mark.parametrize("assign", [False, True])
def test_an_invalid_state_is_an_error_and_never_run(name: str, assign: bool) -> None:
    network = runtime()
    state = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    state[name] += 100_000
    with pytest.raises(DamagedFile):
        network.load_state_dict(state, assign=assign)
    with pytest.raises(DamagedFile, match="load it again"):
        network(EXAMPLE)
    network.load_state_dict(runtime().state_dict())
    assert bits(network(EXAMPLE)) == bits(runtime()(EXAMPLE))


def test_a_state_of_another_dtype_is_an_error() -> None:
    network = runtime()
    state = {name: tensor.double() for name, tensor in network.state_dict().items()}
    with pytest.raises(DamagedFile, match="invalid type"):
        network.load_state_dict(state, assign=True)


def test_a_state_of_other_sizes_is_an_error() -> None:
    network = runtime()
    with pytest.raises(RuntimeError, match="size mismatch"):
        network.load_state_dict(SparseNetwork(programs()[3]).state_dict())


def test_pickles_of_earlier_versions_can_be_loaded() -> None:
    network = runtime()
    state = network.__getstate__()
    state["room"] = state.pop("workspace")
    other = SparseNetwork.__new__(SparseNetwork)
    other.__setstate__(state)
    assert bits(other(EXAMPLE)) == bits(network(EXAMPLE))
