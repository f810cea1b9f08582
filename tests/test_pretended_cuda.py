"""The pretended CUDA device does what a device does, and notices what goes wrong on one."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.cuda_device import forbid_waits
from tests.support.pretended_cuda import PretendedCuda

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real CUDA device")


@pytest.fixture
def gpu() -> Iterator[PretendedCuda]:
    with PretendedCuda() as pretended:
        yield pretended


def ones(*shape: int, device: str = "cuda") -> Tensor:
    return torch.ones(*shape, device=device)


def attributes() -> list[dict[str, object]]:
    owners: tuple[Any, ...] = (torch, torch.cuda, torch.accelerator, torch.optim.Optimizer, Tensor)
    return [{name: value for name, value in vars(owner).items() if not inspect.ismodule(value)} for owner in owners]


def test_torch_is_as_before_afterwards() -> None:
    with PretendedCuda():
        ones(3)  # the first use imports parts of torch
    before = attributes()
    with PretendedCuda():
        kept = ones(3)
        assert kept.is_cuda
        assert attributes() != before
    assert attributes() == before
    assert not torch.cuda.is_available()
    assert kept.device.type == "cpu"


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(2, device="cuda"),
        lambda: torch.tensor([1, 2], device="cuda:0"),
        lambda: torch.as_tensor(torch.ones(2), device="cuda"),
        lambda: torch.ones(2).to("cuda"),
        lambda: torch.ones(2).to(ones(1)),
        lambda: torch.ones(2).cuda(),
        lambda: torch.ones(2).to(dtype=torch.float64, device=torch.device("cuda")),
        lambda: torch.zeros_like(torch.ones(2), device="cuda"),
        lambda: ones(2).new_tensor([1, 2]),
        lambda: ones(2).new_zeros(3),
        lambda: ones(3) * 2,
        lambda: ones(3)[1:],
        lambda: torch.cat([ones(3), ones(2)]),
        lambda: copy.deepcopy(ones(2)),
        lambda: nn.Linear(2, 2).cuda().weight,
        lambda: nn.Linear(2, 2, device="cuda").bias,
        lambda: copy.deepcopy(nn.Linear(2, 2).cuda()).weight,
        lambda: torch.vmap(lambda x: x * 2)(ones(2, 2)),
        lambda: torch.empty(2).copy_(ones(2)).cuda(),
    ],
)
@pytest.mark.usefixtures("gpu")
def test_these_are_on_the_device(make: Callable[[], Tensor]) -> None:
    made = make()
    assert made.device == torch.device("cuda", 0)
    assert made.is_cuda
    assert made.cpu().device.type == "cpu"


@pytest.mark.usefixtures("gpu")
def test_other_tensors_are_on_the_cpu() -> None:
    for tensor in (
        torch.zeros(2),
        ones(2).cpu(),
        torch.empty(2).copy_(ones(2)),
        torch.zeros_like(ones(2), device="cpu"),
    ):
        assert tensor.device.type == "cpu"
        tensor.numpy()
    with torch.device("cuda"):
        assert torch.zeros(2).is_cuda
    assert torch.zeros(2, device="meta").device.type == "meta"
    with pytest.raises(TypeError, match="numpy"):
        ones(2).numpy()


@pytest.mark.parametrize(
    "mix",
    [
        lambda: ones(2) + torch.ones(2),
        lambda: functional.linear(ones(1, 2), torch.ones(3, 2)),
        lambda: torch.ones(2)[torch.zeros(1, dtype=torch.int64, device="cuda")],
        lambda: torch.zeros(()).add_(ones(())),
        lambda: torch.stack([ones(2), torch.ones(2)]),
        lambda: nn.Linear(2, 2).cuda()(torch.ones(1, 2)),
    ],
)
@pytest.mark.usefixtures("gpu")
def test_tensors_of_two_devices_do_not_mix(mix: Callable[[], Tensor]) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        mix()


@pytest.mark.usefixtures("gpu")
def test_a_cpu_tensor_without_dimensions_mixes() -> None:
    assert (ones(2) * torch.tensor(3.0)).is_cuda
    assert torch.where(ones(2) > 0, torch.tensor(1.0), torch.tensor(2.0)).is_cuda


def test_several_devices_do_not_mix_either() -> None:
    with PretendedCuda(devices=2):
        assert torch.cuda.device_count() == 2
        first, second = ones(2, device="cuda:0"), ones(2, device="cuda:1")
        with pytest.raises(RuntimeError, match="cuda:0, cuda:1"):
            first + second
        assert (first.to(second) + second).device.index == 1
        with torch.cuda.device(1):
            assert torch.cuda.current_device() == 1
            assert ones(2).device.index == 1
        with pytest.raises(RuntimeError, match="ordinal"):
            ones(2, device="cuda:2")


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: float(x[0]),
        lambda x: bool(x.any()),
        lambda x: x.tolist(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x[torch.tensor([0])],
        lambda x: x.masked_select(x > 0),
        lambda x: torch.equal(x, x),
        lambda x: x.cpu(),
        lambda x: x.copy_(torch.ones(3)),
        lambda x: torch.ones(3).to(x),
        lambda x: torch.tensor([1.0], device=x.device),
        lambda x: torch.unique(x),
        lambda _: torch.cuda.synchronize(),
        lambda _: torch.cuda.current_stream().synchronize(),
    ],
)
def test_waits_of_the_host_are_noted_with_their_place_and_can_be_forbidden(
    wait: Callable[[Tensor], Any], gpu: PretendedCuda
) -> None:
    x = ones(3)
    assert not gpu.waits.noted
    wait(x)
    assert gpu.waits.noted[0].where == f"tests/test_pretended_cuda.py:{inspect.getsourcelines(wait)[1]}"
    with forbid_waits(), pytest.raises(RuntimeError, match="synchronizing"):
        wait(x)
    wait(x)


def test_work_on_the_device_does_not_wait(gpu: PretendedCuda) -> None:
    x, indices = ones(3), torch.zeros(2, dtype=torch.int64, device="cuda")
    with forbid_waits():
        x.add_(1).mul_(2)[indices] += 1
        torch.where(x > 1, x, 0).masked_fill_(x > 2, 0)
        x.to(torch.float64).max()
        torch.ones(3).pin_memory().to("cuda", non_blocking=True)
        x.copy_(torch.ones(3).pin_memory(), non_blocking=True)
    assert not gpu.waits.noted


def test_a_copy_that_does_not_block_arrives_with_the_next_wait(gpu: PretendedCuda) -> None:
    x = ones(3)
    copied = x.to("cpu", non_blocking=True)
    x.add_(1)
    assert not gpu.waits.noted
    assert copied.isnan().all()
    torch.cuda.synchronize()
    assert copied.tolist() == [1, 1, 1]


class Counter:
    """Work to be captured."""

    def __init__(self) -> None:
        self.total, self.step = ones(2) * 0, 1

    def __call__(self) -> None:
        self.total += torch.full((2,), 2, device="cuda") * self.step


def captured(work: Callable[[], object], pool: Any = None) -> Any:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=torch.cuda.Stream()):
        work()
    return graph


@pytest.mark.usefixtures("gpu")
def test_a_capture_does_nothing_and_a_replay_does_the_same_on_the_same_tensors() -> None:
    count = Counter()
    graph = captured(count)
    assert count.total.tolist() == [0, 0]
    count.step = 5  # a number is taken as it was
    graph.replay()
    graph.replay()
    assert count.total.tolist() == [4, 4]
    count.total = count.total * 1  # the graph writes to the former tensor
    graph.replay()
    assert count.total.tolist() == [4, 4]


@pytest.mark.parametrize(
    "work", [lambda x: x.sum().item(), lambda x: x.cpu(), lambda _: torch.ones(2) + 1, lambda x: torch.ones(2).to(x)]
)
@pytest.mark.usefixtures("gpu")
def test_waits_and_work_of_the_cpu_cannot_be_captured(work: Callable[[Tensor], object]) -> None:
    x = ones(2)
    with pytest.raises(RuntimeError, match="captur"):
        captured(lambda: work(x))
    work(x)


@pytest.mark.usefixtures("gpu")
def test_replays_draw_new_random_numbers_and_keep_batch_norms_statistics() -> None:
    norm, x, drawn = nn.BatchNorm1d(2).cuda(), torch.rand(4, 2, device="cuda"), ones(8)
    graph = captured(lambda: (norm(x), drawn.copy_(torch.rand(8, device="cuda"))))
    assert norm.running_mean is not None
    assert norm.running_mean.tolist() == [0, 0]
    graph.replay()
    first = drawn.clone()
    torch.testing.assert_close(norm.running_mean, x.mean(0) * 0.1)
    graph.replay()
    assert not torch.equal(first, drawn)


@pytest.mark.parametrize(("shared", "overwritten"), [(True, True), (False, False)])
@pytest.mark.usefixtures("gpu")
def test_graphs_that_share_a_pool_overwrite_what_later_ones_made(shared: bool, overwritten: bool) -> None:
    x, made = ones(2), []
    pool = torch.cuda.graph_pool_handle()
    first = captured(lambda: x * 2, pool)
    second = captured(lambda: made.append(x * 3), first.pool() if shared else torch.cuda.graph_pool_handle())
    second.replay()
    assert made[0].tolist() == [3, 3]
    first.replay()
    assert bool(made[0].isnan().all()) == overwritten


@pytest.mark.usefixtures("gpu")
def test_memory_is_counted_until_it_is_freed() -> None:
    x = ones(256)
    view = x[:1]
    assert torch.cuda.memory_allocated() == 1024
    y = x * 2
    assert torch.cuda.memory_allocated() == torch.cuda.max_memory_allocated() == 2048
    del x, y
    assert torch.cuda.memory_allocated() == 1024
    del view
    assert torch.cuda.memory_allocated() == 0
    torch.cuda.reset_peak_memory_stats()
    assert torch.cuda.max_memory_allocated() == 0


def test_memory_may_be_limited() -> None:
    with PretendedCuda(limit=1024, free=10, total=20):
        assert torch.cuda.mem_get_info() == (10, 20)
        x = ones(200)
        with pytest.raises(torch.cuda.OutOfMemoryError):
            ones(200)
        del x
        ones(200)


def test_operations_and_their_bytes_are_listed_also_of_replays(gpu: PretendedCuda) -> None:
    x = ones(4)
    with gpu.operations() as direct:
        x.add_(1)
        x.t()
        x + x
    assert direct == [("aten.add_.Tensor", 16), ("aten.add.Tensor", 32)]
    graph = captured(lambda: x.add_(1))
    with gpu.operations() as replayed:
        graph.replay()
    assert replayed == direct[:1]


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {"foreach": False}])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_optimizers_work_on_the_device(kind: Any, options: dict[str, Any], gpu: PretendedCuda) -> None:
    network = nn.Linear(2, 2).cuda()
    optimizer = kind(network.parameters(), lr=0.1, **options)
    for _ in range(2):
        optimizer.zero_grad()
        network(ones(3, 2)).sum().backward()
        optimizer.step()
    assert network.weight.grad is not None
    assert network.weight.grad.is_cuda
    if options.get("foreach", True):
        assert "item" not in str(gpu.waits.noted)


@pytest.mark.usefixtures("gpu")
def test_autocast_uses_bfloat16_there() -> None:
    with torch.autocast("cuda", torch.bfloat16):
        result = nn.Linear(2, 2).cuda()(ones(1, 2))
    assert result.dtype == torch.bfloat16
    assert result.is_cuda


@pytest.mark.usefixtures("gpu")
def test_operations_without_a_deterministic_implementation_warn() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with pytest.warns(UserWarning, match="kthvalue"):
            ones(3).kthvalue(1)
        torch.ones(3).kthvalue(1)
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_device_describes_itself() -> None:
    with PretendedCuda(capability=(8, 0), total=2**30):
        properties = torch.cuda.get_device_properties(0)
        assert torch.cuda.get_device_capability() == (properties.major, properties.minor) == (8, 0)
        assert properties.total_memory == 2**30
        assert torch.cuda.get_device_name() == properties.name
