"""A recorder of the steps of a search inside a training, independent of the search's own code."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from tombola.integrations.in_loop_search import InLoopSearch
from tombola.pruning.hold import hold
from tombola.pruning.mask import Mask, State


def copy_state(network: nn.Module) -> State:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


class StepRecorder:
    """Records, by level and iteration, the weights at the beginning of each step, and the learning rates and moments
    of the optimizer; and after which steps pruned weights were not zero."""

    def __init__(self, network: nn.Module, search: Callable[[], InLoopSearch | None]) -> None:
        self.network = network
        self._search = search  # there is none before training begins
        self.weights: dict[tuple[int, int], State] = {}
        self.rates: dict[tuple[int, int], list[float]] = {}
        self.moments: dict[tuple[int, int], dict[tuple[str, str], Tensor]] = {}  # by names of parameter and state
        self.steps = 0
        self.not_zero: list[tuple[int, int]] = []

    @property
    def search(self) -> InLoopSearch:
        search = self._search()
        assert search is not None
        return search

    @property
    def _now(self) -> tuple[int, int]:
        return self.search.level, self.search.iteration

    def __enter__(self) -> StepRecorder:
        other = nn.Linear(1, 1)
        with hold(other, Mask({"weight": torch.tensor([[False]])})):  # registers hold's hook on steps before ours
            self._handles = [
                self.network.register_forward_pre_hook(self._before_forward),
                register_optimizer_step_pre_hook(self._before_step),
                register_optimizer_step_post_hook(self._after_step),
            ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _before_forward(self, network: nn.Module, *_: object) -> None:
        if self._search() is not None and network.training:
            self.weights.setdefault(self._now, copy_state(network))

    def _before_step(self, optimizer: Optimizer, *_: object) -> None:
        if self._now not in self.rates:
            self.rates[self._now] = [group["lr"] for group in optimizer.param_groups]
            self.moments[self._now] = {
                (name, key): value.clone()
                for name, parameter in self.network.named_parameters()
                for key, value in optimizer.state.get(parameter, {}).items()
                if isinstance(value, Tensor)
            }

    def _after_step(self, *_: object) -> None:
        self.steps += 1
        parameters = dict(self.network.named_parameters())
        if any(parameters[name].detach()[~kept].any() for name, kept in self.search.mask.items()):
            self.not_zero.append(self._now)

    def assert_rewound(self) -> None:
        """Every level began with the kept weights, their moments and the learning rates at the rewinding point."""
        begin = self.search.begin
        for level in range(1, self.search.level + 1):
            mask = self.search.ticket_at(level).mask
            for name, expected in self.weights[0, begin].items():
                assert torch.equal(self.weights[level, begin][name], expected * mask.get(name, 1)), (level, name)
            assert self.rates[level, begin] == self.rates[0, begin]
            moments = {
                (name, key): value * mask[name] if name in mask and value.shape == mask[name].shape else value
                for (name, key), value in self.moments[0, begin].items()
            }
            torch.testing.assert_close(self.moments[level, begin], moments, rtol=0, atol=0)
        assert not self.not_zero
