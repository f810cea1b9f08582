"""The plain loop with Accelerate: its wrappers, its data loader, and gradients accumulated over two batches.

With the defaults (5 replicates, 30 trainings, 41 s on one core) tickets match the dense network's 96.6% at every
level, down to 13.2% of the weights, with 96.9%: we are 95% sure of at most 0.5 points less.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import tombola

pixels, labels = load_digits(return_X_y=True)
x, held_out_x, y, held_out_y = map(
    torch.from_numpy, train_test_split(pixels.astype("float32") / 16, labels, test_size=600, random_state=0)
)


def make() -> nn.Module:
    """An MLP of 50,200 weights."""
    return nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))


def train(model: nn.Module) -> None:
    """20 epochs of 20 steps, each of the gradients of two batches of 30."""
    accelerator = Accelerator(gradient_accumulation_steps=2, cpu=True)
    loader = DataLoader(TensorDataset(x, y), batch_size=30, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for _ in range(20):
        for images, digits in loader:
            with accelerator.accumulate(model), accelerator.autocast():
                accelerator.backward(cross_entropy(model(images), digits))
                optimizer.step()
                optimizer.zero_grad()


def evaluate(model: nn.Module) -> dict[str, float]:
    """Accuracy on the 600 images held out."""
    return {"accuracy": (model(held_out_x).argmax(1) == held_out_y).float().mean().item()}


def main(levels: int = 5, replicates: int = 5) -> tombola.SearchResult:
    """A third of the weights goes at each level."""
    return tombola.find_ticket(make, train, evaluate=evaluate, levels=levels, rate=1 / 3, replicates=replicates)


if __name__ == "__main__":
    ticket, levels = main()
    print(levels)
