"""A small ResNet with Lightning, on scikit-learn's digits as images, rewound to step 30.

`train` has a parameter `begin`, the step at which training resumes. So the learning rate after rewinding is that of
the remaining steps, and tickets train for as many steps in all as the dense network.

With the defaults (5 replicates, 35 trainings, 80 s on one core) tickets match the dense network's 97.8% at every
level, down to 11.6% of the weights, with 97.9%: we are 95% sure of at most 0.5 points less.
"""

from __future__ import annotations

import logging

import lightning
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import tombola
from tombola.zoo.models.resnet import resnet

STEPS, WARM, BATCH = 300, 30, 40

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)

pixels, labels = load_digits(return_X_y=True)
images = torch.from_numpy(pixels.astype("float32") / 16).view(-1, 1, 8, 8)
x, held_out_x, y, held_out_y = train_test_split(images, torch.from_numpy(labels), test_size=600, random_state=0)


class Classifying(lightning.LightningModule):
    """How the network is trained."""

    def __init__(self, network: nn.Module, begin: int) -> None:
        super().__init__()
        self.network = network
        self.begin = begin

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        images, digits = batch
        return cross_entropy(self.network(images), digits)

    def configure_optimizers(self) -> dict[str, object]:
        """SGD; the learning rate rises for 30 steps and falls to 0 at the last."""
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(self.begin + step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}


def factor(step: int) -> float:
    """Of the learning rate."""
    return min((step + 1) / WARM, (STEPS - step) / (STEPS - WARM))


def make() -> nn.Module:
    """ResNet-8 with 8 channels in its first stage."""
    return resnet((1, 8, 8), 10, depth=8, width=8)


def train(model: nn.Module, begin: int = 0) -> None:
    """300 steps, the first `begin` of which are done."""
    loader = DataLoader(TensorDataset(x, y), BATCH, shuffle=True, drop_last=True)
    trainer = lightning.Trainer(
        max_steps=STEPS - begin,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifying(model, begin), loader)


def evaluate(model: nn.Module) -> dict[str, float]:
    """Accuracy on the 600 images held out."""
    return {"accuracy": (model(held_out_x).argmax(1) == held_out_y).float().mean().item()}


def main(levels: int = 5, replicates: int = 5, rewind: int = 30) -> tombola.SearchResult:
    """All convolutions are pruned by one threshold."""
    return tombola.find_ticket(
        make, train, evaluate=evaluate, levels=levels, rate=0.35, scope="global", rewind=rewind, replicates=replicates
    )


if __name__ == "__main__":
    ticket, levels = main()
    print(levels)
