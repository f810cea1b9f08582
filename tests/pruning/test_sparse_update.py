"""Fine-tuning of some weights, and the file of what it changed."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.support.errors import raises_input_error
from tombola.pruning.mask import Mask
from tombola.pruning.prune_model import prune
from tombola.pruning.sparse_update import add_update, save_update, train_only


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def steps(trained: nn.Module, optimizer: torch.optim.Optimizer, count: int = 5) -> None:
    torch.manual_seed(1)
    x, y = torch.randn(20, 6), torch.randint(3, (20,))
    for _ in range(count):
        optimizer.zero_grad()
        nn.functional.cross_entropy(trained(x), y).backward()
        optimizer.step()


def ticket(base: nn.Module) -> Mask:
    """The largest changes of a first fine-tuning."""
    finetuned = copy.deepcopy(base)
    steps(finetuned, torch.optim.Adam(finetuned.parameters(), 0.05))
    return prune(finetuned, 0.25, score="distance", scope="global", start=base.state_dict())


@pytest.mark.parametrize("warm", [False, True])
def test_only_the_weights_of_the_mask_change(warm: bool) -> None:
    """Also with weight decay, and momentum of steps before."""
    trained = network()
    optimizer = torch.optim.AdamW(trained.parameters(), 0.05, weight_decay=0.5)
    if warm:
        steps(trained, optimizer)
    base = copy.deepcopy(trained)
    mask = ticket(base)
    with train_only(trained, mask):
        steps(trained, optimizer)
        assert not trained[0].bias.grad.any()
        for name, kept in mask.items():
            assert torch.equal(trained.get_parameter(name).grad != 0, kept & (trained.get_parameter(name).grad != 0))
    for name, parameter in trained.named_parameters():
        changed = parameter != base.get_parameter(name)
        assert torch.equal(changed, mask.get(name, torch.zeros_like(changed)))
    steps(trained, optimizer)  # the context is over: everything is trained again
    assert (trained[0].bias != base[0].bias).all()


def test_the_file_adds_the_change_to_a_base(tmp_path: Path) -> None:
    base, path = network(), tmp_path / "update.safetensors"
    trained = copy.deepcopy(base)
    mask = ticket(base)
    with train_only(trained, mask):
        steps(trained, torch.optim.SGD(trained.parameters(), 0.1))
    assert save_update(path, base.state_dict(), trained) <= mask.count
    add_update(base, path)
    for one, other in zip(base.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_what_does_not_fit_is_named_and_changes_nothing(tmp_path: Path) -> None:
    base, path = network(), tmp_path / "update.safetensors"
    with raises_input_error("mask", "1.weight", "2.weight"), train_only(base, Mask({"1.weight": torch.eye(2) == 1})):
        pass
    with raises_input_error("mask:", "(2, 2)", "(8, 6)"), train_only(base, Mask({"0.weight": torch.eye(2) == 1})):
        pass
    with raises_input_error("base:", "0.weight"):
        save_update(path, {}, base)
    with raises_input_error("path:", "update.safetensors"):
        add_update(base, path)
    changed = copy.deepcopy(base)
    changed[2].weight.data[0, 0] += 1
    assert save_update(path, base.state_dict(), changed) == 1
    with raises_input_error("2.weight", "0.weight"):
        add_update(nn.Sequential(nn.Linear(6, 8)), path)
    with raises_input_error("path:", "2.weight", "1 entries"):
        add_update(nn.ModuleDict({"2": nn.Linear(1, 1)}).requires_grad_(False), _moved(path, tmp_path / "moved"))


def _moved(path: Path, to: Path) -> Path:
    from safetensors.torch import load_file, save_file

    save_file({name: part + 5 if name.startswith("indices") else part for name, part in load_file(path).items()}, to)
    return to
