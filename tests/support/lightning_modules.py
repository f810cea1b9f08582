"""A Lightning trainer, modules and a resumable loader of digits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from tests.support.step_recorder import StepRecorder
from tombola.integrations.lightning import LotteryTicket

EPOCH = 8
"""Batches."""

digits, labels = load_digits(return_X_y=True)
X, Y = torch.tensor(digits / 16, dtype=torch.float32), torch.tensor(labels)


class Loader:
    """Eight batches of digits an epoch, in a fixed order; it has a state, as torchdata's loaders have."""

    def __init__(self) -> None:
        self.seen = 0

    def __len__(self) -> int:
        return EPOCH

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            chosen = torch.randint(1000, (40,), generator=torch.Generator().manual_seed(self.seen))
            self.seen += 1
            yield X[chosen], Y[chosen]
            if self.seen % EPOCH == 0:
                return

    @property
    def sampler(self) -> Loader:
        """Lightning calls its `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        if self.seen % EPOCH == 0:  # Lightning does not load a state that was saved between epochs
            self.seen = epoch * EPOCH

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


class Steps:
    """The methods of a module for either package of Lightning."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU())
            self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x))

    def loss(self, batch: Any) -> Any:
        return functional.cross_entropy(self(batch[0]), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Any:  # noqa: ARG002
        loss = self.loss(batch)
        self.log("train_loss", loss)  # type: ignore[attr-defined]
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        self.log("val_loss", self.loss(batch))  # type: ignore[attr-defined]
        self.log("val_accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())  # type: ignore[attr-defined]

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), 0.01)  # type: ignore[attr-defined]
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=2 * EPOCH + 1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Module(Steps, lightning.LightningModule):
    """Adam, with a scheduler stepped at every step."""


class ByEpoch(Module):
    """SGD, with a scheduler stepped at every epoch."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


class Plateau(Module):
    """SGD, with a scheduler that uses the validation loss."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val_loss"}}


class Manual(Module):
    """Two optimizers, with manual optimization."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        loss = self.loss(batch)
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(self.body.parameters(), 0.01), torch.optim.SGD(self.head.parameters(), 0.1, 0.9)]


def trainer(folder: Path, *callbacks: Any, library: Any = lightning, **options: Any) -> Any:
    quiet = {"logger": False, "enable_checkpointing": False, "max_epochs": 100}
    return library.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **quiet | options,
    )


def validation() -> DataLoader[Any]:
    return DataLoader(TensorDataset(X[1000:], Y[1000:]), 400)


def fit(folder: Path, module: Any, ticket: LotteryTicket, *callbacks: Any, **options: Any) -> Any:
    """A training in which pruned weights stay zero and, unless it is resumed, every level is rewound."""
    ckpt_path = options.pop("ckpt_path", None)
    made = trainer(folder, ticket, *callbacks, **options)
    with StepRecorder(module, lambda: ticket._running) as recorder:
        made.fit(module, Loader(), validation(), ckpt_path=ckpt_path)
    assert not recorder.not_zero
    if ckpt_path is None and type(module) is not Manual:
        recorder.assert_rewound()
    return made
