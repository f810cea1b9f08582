"""Holds in distributed training: `DistributedDataParallel` and `fully_shard` in two processes."""

from __future__ import annotations

import os
import pickle
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from tests.support.distributed import in_two_processes, needs_gloo, network
from tests.support.held_networks import mask_of
from tombola.pruning.hold import held, hold
from tombola.pruning.mask import Mask

pytestmark = needs_gloo
STEPS = 6


def mask() -> Mask:
    return mask_of(network())


def whole(tensor: Any) -> Tensor:
    """The full tensor, if it is sharded."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def train(
    network: nn.Module, optimizer: Optimizer, steps: range, rank: int = 0, ranks: int = 1, clip: bool = True
) -> None:
    """Each rank has its part of the batch. Asserts that pruned weights and gradients are zero at every step."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(8, 6, generator=generator), torch.randint(0, 3, (8,), generator=generator)
        optimizer.zero_grad()
        functional.cross_entropy(network(x[rank::ranks]), y[rank::ranks]).backward()
        if clip:
            nn.utils.clip_grad_norm_(network.parameters(), 0.1)
        optimizer.step()
        for name, parameter in network.named_parameters():
            kept = mask().get(name.removeprefix("module."))
            if kept is not None:
                assert (whole(parameter)[~kept] == 0).all()
                assert parameter.grad is not None
                assert (whole(parameter.grad)[~kept] == 0).all()


def adam(network: nn.Module) -> Optimizer:
    return torch.optim.Adam(network.parameters(), lr=0.02, weight_decay=0.1)


def alone(clip_from: int = 0) -> dict[str, Tensor]:
    """The result of one process on whole batches."""
    network_ = network()
    optimizer = adam(network_)
    with hold(network_, mask()):
        train(network_, optimizer, range(clip_from), clip=False)
        train(network_, optimizer, range(clip_from, STEPS))
    return network_.state_dict()


def parallel(rank: int, folder: Path, order: str, begin: int, end: int) -> None:
    network_ = network()
    if order == "hold first":
        hold(network_, mask())
    wrapped = DistributedDataParallel(network_)
    if order == "wrap first":
        hold(wrapped, mask())
    assert held(wrapped) == held(network_) == mask()
    optimizer = adam(wrapped)
    if begin:
        state = torch.load(folder / f"{begin}.pt")
        wrapped.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
    train(wrapped, optimizer, range(begin, end), rank, ranks=2)
    torch.save(network_.state_dict(), folder / f"rank-{rank}.pt")
    if rank == 0:
        torch.save({"network": wrapped.state_dict(), "optimizer": optimizer.state_dict()}, folder / f"{end}.pt")
    distributed.barrier()
    if end < STEPS:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("order", ["hold first", "wrap first"])
def test_two_processes_train_a_held_network_as_one_process_does(tmp_path: Path, order: str) -> None:
    in_two_processes(parallel, tmp_path, order, 0, STEPS)
    first, second = (torch.load(tmp_path / f"rank-{rank}.pt") for rank in range(2))
    for name, expected in alone().items():
        torch.testing.assert_close(first[name], expected, rtol=0, atol=1e-6)
        assert torch.equal(first[name], second[name])


def test_a_killed_training_of_two_processes_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(multiprocessing.ProcessExitedException, match="SIGKILL"):
        in_two_processes(parallel, tmp_path, "hold first", 0, STEPS // 2)
    assert not (tmp_path / f"{STEPS}.pt").exists()
    in_two_processes(parallel, tmp_path, "hold first", STEPS // 2, STEPS)
    resumed = torch.load(tmp_path / "rank-0.pt")
    (tmp_path / "whole").mkdir()
    in_two_processes(parallel, tmp_path / "whole", "hold first", 0, STEPS)
    uninterrupted = torch.load(tmp_path / "whole" / "rank-0.pt")
    for name, tensor in uninterrupted.items():
        assert torch.equal(resumed[name], tensor)


def sharded(rank: int, folder: Path, order: str) -> None:
    from torch.distributed.fsdp import fully_shard

    network_ = network()
    if order == "hold first":
        hold(network_, mask())
    mesh = distributed.device_mesh.init_device_mesh("cpu", (2,))
    for layer in [*network_, network_]:
        fully_shard(layer, mesh=mesh)
    if order == "shard first":
        hold(network_, mask())
    optimizer = adam(network_)
    # A replaced parameter is noticed at the first step; clipping before it would use the dense gradient.
    train(network_, optimizer, range(1), rank, ranks=2, clip=order == "shard first")
    train(network_, optimizer, range(1, STEPS), rank, ranks=2)
    assert held(network_) == mask()
    state = {name: whole(tensor) for name, tensor in network_.state_dict().items()}
    dense = {name: tensor + 1 for name, tensor in state.items()}
    distribute, shard = distributed.tensor.distribute_tensor, [distributed.tensor.Shard(0)]
    network_.load_state_dict({name: distribute(tensor, mesh, shard) for name, tensor in dense.items()})
    for name, tensor in network_.state_dict().items():
        assert torch.equal(whole(tensor), dense[name] * mask().get(name, 1))
    if rank == 0:
        torch.save(state, folder / "state.pt")


@pytest.mark.parametrize("order", ["hold first", "shard first"])
def test_a_sharded_network_trains_as_an_unsharded_one(tmp_path: Path, order: str) -> None:
    if not hasattr(pytest.importorskip("torch.distributed.fsdp"), "fully_shard"):
        pytest.skip("no fully_shard in this version of PyTorch")
    in_two_processes(sharded, tmp_path, order)
    state = torch.load(tmp_path / "state.pt")
    for name, expected in alone(clip_from=int(order == "hold first")).items():
        torch.testing.assert_close(state[name], expected, rtol=0, atol=1e-6)


def unpickled(rank: int, folder: Path) -> None:
    network_ = pickle.loads((folder / "network.pickle").read_bytes())
    assert held(network_) == mask()
    train(network_, adam(network_), range(STEPS), rank, ranks=1)


def test_an_unpickled_network_is_held_in_another_process(tmp_path: Path) -> None:
    network_ = network()
    hold(network_, mask())
    (tmp_path / "network.pickle").write_bytes(pickle.dumps(network_))
    in_two_processes(unpickled, tmp_path)
