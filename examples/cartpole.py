"""A policy that balances a pole on a cart, trained by policy gradients.

The environment is CartPole as in Gymnasium's `CartPole-v0` (Barto, Sutton & Anderson 1983): a reward of 1 for each
step until the pole falls by 12 degrees, the cart leaves the track or 200 steps are done. Here, many carts are
simulated at once, as tensors. Yu et al. (2020, "Playing the lottery with rewards and multiple languages", section 4)
search for tickets of such policies. The judged figure is the mean return of 64 new episodes.

With the defaults (5 replicates, 45 trainings, 6 min on one core) every sparsity of this search balances the pole:
with a margin of 10, 36% of the weights (198.1) and 21.6% (198.2) are as good as the dense network (200.0). But newly
drawn weights under the same masks are as good (197.3 and 196.4), so no level wins: this task is too easy for the
initial weights to matter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import tombola

CARTS, STEPS, UPDATES, HIDDEN, LR, DISCOUNT = 16, 200, 100, 64, 1e-2, 0.98


class CartPole:
    """`carts` environments; states [carts, 4]: position, velocity, angle, angular velocity."""

    def __init__(self, carts: int) -> None:
        self.states = torch.empty(carts, 4).uniform_(-0.05, 0.05)
        self.alive = torch.ones(carts, dtype=torch.bool)

    def step(self, pushed_right: Tensor) -> Tensor:
        """Push every cart to the right or left for 0.02 s; return the rewards [carts]. Fallen carts get 0."""
        gravity, cart, pole, half_length, force, seconds = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
        velocity, angle, turning = self.states[:, 1:].unbind(1)
        sine, cosine = angle.sin(), angle.cos()
        pull = ((2 * pushed_right - 1) * force + pole * half_length * turning.square() * sine) / (cart + pole)
        angular = (gravity * sine - cosine * pull) / (half_length * (4 / 3 - pole * cosine.square() / (cart + pole)))
        linear = pull - pole * half_length * angular * cosine / (cart + pole)
        changes = torch.stack([velocity, linear, turning, angular], 1)
        rewards = self.alive.float()
        self.states = self.states + seconds * changes
        self.alive &= (self.states[:, 0].abs() <= 2.4) & (self.states[:, 2].abs() <= 12 * math.pi / 180)
        return rewards


def make() -> nn.Module:
    """4,416 weights: states [B, 4] -> logits of pushing to the right [B, 1]."""
    return nn.Sequential(nn.Linear(4, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))


@torch.no_grad()
def play(model: nn.Module, carts: int, explore: bool) -> tuple[Tensor, Tensor, Tensor]:
    """One episode of each cart, with random actions or with the likelier ones; states [T, carts, 4], actions
    [T, carts] and rewards [T, carts]."""
    world = CartPole(carts)
    states, actions, rewards = [], [], []
    while world.alive.any() and len(rewards) < STEPS:
        right = model(world.states).squeeze(1).sigmoid()
        states.append(world.states)
        actions.append((right > (torch.rand(carts) if explore else 0.5)).float())
        rewards.append(world.step(actions[-1]))
    return torch.stack(states), torch.stack(actions), torch.stack(rewards)


def train(model: nn.Module) -> None:
    """REINFORCE (Williams 1992): 100 updates by the episodes of 16 carts; discounted returns are standardised."""
    optimizer = torch.optim.Adam(model.parameters(), LR)
    for _ in range(UPDATES):
        states, actions, rewards = play(model, CARTS, explore=True)
        returns = torch.zeros_like(rewards)
        for t in range(len(rewards) - 1, -1, -1):
            returns[t] = rewards[t] + (DISCOUNT * returns[t + 1] if t + 1 < len(rewards) else 0)
        played = rewards > 0
        advantages = (returns[played] - returns[played].mean()) / (returns[played].std() + 1e-6)
        optimizer.zero_grad()
        logits = model(states[played]).squeeze(1)
        binary_cross_entropy_with_logits(logits, actions[played], advantages).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def evaluate(model: nn.Module) -> dict[str, float]:
    """The mean return of 64 episodes with the likelier actions; at most 200."""
    return {"return": play(model, 64, explore=False)[2].sum(0).mean().item()}


def main(levels: int = 4, replicates: int = 5) -> tombola.SearchResult:
    """Down to 13% of the weights."""
    return tombola.find_ticket(
        make,
        train,
        evaluate=evaluate,
        levels=levels,
        rate=0.4,
        scope="global",
        replicates=replicates,
        margin=10,
        controls={"reinit": 1},
    )


if __name__ == "__main__":
    ticket, levels = main()
    print(levels)
