"""What the tests of several frameworks share."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from tombola.integrations.in_loop_search import InLoopSearch
from tombola.pruning.hold import hold
from tombola.pruning.mask import Mask, State


def copy_of(network: nn.Module) -> State:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


class Witness:
    """Watches from outside: the weights that every iteration begins with, the state of the optimizer that makes its
    step, and whether pruned weights are zero after it."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.rounds: InLoopSearch | None = None
        self.before: dict[tuple[int, int], State] = {}  # by level and iteration
        self.rates: dict[tuple[int, int], list[float]] = {}
        self.moments: dict[tuple[int, int], list[Tensor]] = {}
        self.steps = 0
        self.dirty: list[tuple[int, int]] = []

    def __enter__(self) -> Witness:
        one = nn.Linear(1, 1)
        with hold(one, Mask({"weight": torch.tensor([[False]])})):  # its hook on steps comes before ours
            self._handles = [
                self.network.register_forward_pre_hook(self._begin),
                register_optimizer_step_pre_hook(self._look),
                register_optimizer_step_post_hook(self._check),
            ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _begin(self, network: nn.Module, *_: object) -> None:
        if self.rounds is not None and network.training:
            self.before.setdefault((self.rounds.level, self.rounds.iteration), copy_of(network))

    def _look(self, optimizer: Optimizer, *_: object) -> None:
        assert self.rounds is not None
        at = self.rounds.level, self.rounds.iteration
        if at not in self.rates:
            self.rates[at] = [group["lr"] for group in optimizer.param_groups]
            self.moments[at] = [
                value.clone()
                for state in optimizer.state_dict()["state"].values()
                for value in state.values()
                if isinstance(value, Tensor)
            ]

    def _check(self, *_: object) -> None:
        assert self.rounds is not None
        self.steps += 1
        parameters = dict(self.network.named_parameters())
        if any(parameters[name].detach()[~kept].any() for name, kept in self.rounds.mask.items()):
            self.dirty.append((self.rounds.level, self.rounds.iteration))

    def assert_rewound(self) -> None:
        """Every level began with the weights, learning rates and moments that the dense one had there, where kept."""
        assert self.rounds is not None
        rounds = self.rounds
        origin = 0, rounds.begin
        for level in range(1, rounds.level + 1):
            mask = rounds.ticket_at(level).mask
            for name, began in self.before[origin].items():
                expected = began * mask[name] if name in mask else began
                assert torch.equal(self.before[level, rounds.begin][name], expected), (level, name)
            assert self.rates[level, rounds.begin] == self.rates[origin]
            moments, originals = self.moments[level, rounds.begin], self.moments[origin]
            assert len(moments) == len(originals)
            assert all(torch.equal(a, b) for a, b in zip(moments, originals, strict=True))
        assert not self.dirty
