from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import pytorch_lightning
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from tests.integrations.helpers import Witness, copy_of, same
from tombola.integrations.lightning import LotteryTicket
from tombola.pruning.mask import prunable
from tombola.utils.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        ".*isinstance.treespec, LeafSpec.",
        "Be aware that when using `ckpt_path`",
        "You defined a `validation_step` but have no",
    )
]

EPOCH = 8


class Loader:
    """Eight batches of digits an epoch, in an order of its own; it can be put where it was, as torchdata's can."""

    def __init__(self) -> None:
        x, y = load_digits(return_X_y=True)
        self.x, self.y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
        self.seen = 0

    def __len__(self) -> int:
        return EPOCH

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            chosen = torch.randint(1000, (40,), generator=torch.Generator().manual_seed(self.seen))
            self.seen += 1
            yield self.x[chosen], self.y[chosen]
            if self.seen % EPOCH == 0:
                return

    @property
    def sampler(self) -> Loader:
        """What Lightning tells the epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        if self.seen % EPOCH == 0:  # of what is saved between epochs, Lightning does not load the state below
            self.seen = epoch * EPOCH

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


class Steps:
    """What a module does, whichever Lightning it belongs to."""

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
    """Adam, and a schedule for each step."""


class ByEpoch(Module):
    """SGD, and a schedule for each epoch."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


class Plateau(Module):
    """A schedule that looks at what was measured."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val_loss"}}


class Manual(Module):
    """Two optimizers, stepped by hand."""

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


class Watching(Callback):
    """Has a witness know where the search is."""

    def __init__(self, ticket: LotteryTicket, witness: Witness) -> None:
        self.ticket, self.witness = ticket, witness

    def on_train_start(self, *_: object) -> None:
        self.witness.rounds = self.ticket._rounds


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
    loader = Loader()
    return DataLoader(TensorDataset(loader.x[1000:], loader.y[1000:]), 400)


def fit(folder: Path, module: Any, ticket: LotteryTicket, *callbacks: Any, **options: Any) -> Any:
    """A whole training, with everything that should be true of each checked on the way."""
    ckpt_path = options.pop("ckpt_path", None)
    made = trainer(folder, ticket, *callbacks, **options)
    with Witness(module) as witness:
        made.callbacks.append(Watching(ticket, witness))
        made.fit(module, Loader(), validation(), ckpt_path=ckpt_path)
    assert not witness.dirty
    if ckpt_path is None and type(module) is not Manual:
        witness.assert_rewound()
    return made


def test_a_search_within_a_training_finds_a_ticket(tmp_path: Path) -> None:
    module, ticket = Module(), LotteryTicket(levels=3, every="2ep", rewind="5it", rate=0.4)
    made = fit(tmp_path, module, ticket)
    assert made.global_step == 16 + 3 * 11  # it was stopped there
    left = [64 * 32 + 32 * 10]
    sizes = [64 * 32, 32 * 10]
    for _ in range(3):
        sizes = [size - round(0.4 * size) for size in sizes]
        left.append(sum(sizes))
    assert [row.weights for row in ticket.levels] == left
    accuracies = [row.metrics["val_accuracy"] for row in ticket.levels]
    assert min(accuracies) > 0.5  # chance is 0.1
    assert ticket.ticket.mask.count == left[-1]
    assert list(ticket.ticket.mask) == prunable(Module())
    for name, kept in ticket.ticket.mask.items():
        assert not module.state_dict()[name][~kept].any()
    ticket.ticket.save(tmp_path / "ticket.safetensors")
    ticket.ticket.into(Module())


@pytest.mark.parametrize(
    ("module", "options"),
    [
        (ByEpoch, {}),
        (Plateau, {}),
        (Module, {"accumulate_grad_batches": 3}),
        (Module, {"precision": "bf16-mixed"}),
        (Module, {"precision": "64-true"}),
        (Module, {"precision": "bf16-true"}),
        (Module, {"gradient_clip_val": 0.1}),
    ],
)
def test_whatever_the_trainer_does_levels_begin_where_the_dense_network_was(
    tmp_path: Path, module: type[Module], options: dict[str, Any]
) -> None:
    ticket = LotteryTicket(levels=2, every="2ep", rewind="1ep", rate=0.5)
    made = fit(tmp_path, module(), ticket, **options)
    per_epoch = 3 if "accumulate_grad_batches" in options else 8
    assert made.global_step == 4 * per_epoch
    assert ticket.levels[-1].density == 0.25


def test_levels_may_end_within_an_epoch(tmp_path: Path) -> None:
    ticket = LotteryTicket(levels=3, every="5it", rewind="2it", rate=0.5)
    assert fit(tmp_path, Module(), ticket).global_step == 5 + 3 * 3
    assert len(ticket.levels) == 4


def test_several_optimizers_go_back_together(tmp_path: Path) -> None:
    module, ticket = Manual(), LotteryTicket(levels=2, every="2ep", rewind="1ep", rate=0.5)
    states: dict[tuple[int, int], list[Any]] = {}

    class Look(Callback):
        def on_train_batch_start(self, trainer: Any, *_: object) -> None:
            rounds = ticket._searching
            states[rounds.level, rounds.iteration] = [copy.deepcopy(o.state_dict()) for o in trainer.optimizers]

    made = fit(tmp_path, module, ticket, Look())
    assert made.global_step == 2 * 4 * EPOCH
    for level in (1, 2):
        assert str(states[level, EPOCH]) == str(states[0, EPOCH])
    assert str(states[0, EPOCH]) != str(states[0, EPOCH + 1])


def test_the_other_name_of_lightning_works_too(tmp_path: Path) -> None:
    class Other(Steps, pytorch_lightning.LightningModule):
        pass

    ticket = LotteryTicket(levels=1, every="1ep", rate=0.5)
    made = trainer(tmp_path, ticket, library=pytorch_lightning)
    made.fit(Other(), Loader(), validation())
    assert made.global_step == 2 * EPOCH
    assert ticket.ticket.mask.density == 0.5
    assert isinstance(ticket, pytorch_lightning.Callback)
    assert isinstance(ticket, lightning.Callback)


class AfterValidation(ModelCheckpoint):
    """Has a name of its own in checkpoints."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A whole search, and a checkpoint of every step and every epoch's end."""
    folder = tmp_path_factory.mktemp("whole")
    module, ticket = Module(), LotteryTicket(levels=2, every="12it", rewind="3it", rate=0.5)
    keep = {"save_top_k": -1, "dirpath": folder}
    fit(
        folder,
        module,
        ticket,
        ModelCheckpoint(every_n_train_steps=1, filename="{step}", **keep),
        ModelCheckpoint(every_n_epochs=1, save_on_train_epoch_end=True, filename="epoch-{step}", **keep),
        AfterValidation(every_n_epochs=1, save_on_train_epoch_end=False, filename="validated-{step}", **keep),
        enable_checkpointing=True,
    )
    return folder, module, ticket


@pytest.mark.parametrize(
    "name",
    [
        *(f"step={n}" for n in (1, 3, 4, 8, 11, 12, 13, 16, 20, 21, 22, 24, 29)),
        "epoch-step=8",
        "validated-step=16",
    ],
)
def test_a_training_resumed_at_any_batch_gives_the_same_bits(uninterrupted: Any, tmp_path: Path, name: str) -> None:
    folder, module, ticket = uninterrupted
    resumed, again = Module(), LotteryTicket(levels=2, every="12it", rewind="3it", rate=0.5)
    made = fit(tmp_path, resumed, again, ckpt_path=folder / f"{name}.ckpt")
    assert made.global_step == 12 + 2 * 9
    assert same(resumed.state_dict(), module.state_dict())
    assert again.ticket.mask == ticket.ticket.mask
    assert same(again.ticket.start, ticket.ticket.start)
    assert [row.weights for row in again.levels] == [row.weights for row in ticket.levels]
    if name not in ("step=8", "step=16"):  # saved before validation, which Lightning then leaves out for good
        assert again.levels == ticket.levels


def test_a_finished_search_has_nothing_to_go_on_with(uninterrupted: Any, tmp_path: Path) -> None:
    folder, module, ticket = uninterrupted
    resumed, again = Module(), LotteryTicket(levels=2, every="12it", rewind="3it", rate=0.5)
    assert fit(tmp_path, resumed, again, ckpt_path=folder / "step=30.ckpt").global_step == 30
    assert same(resumed.state_dict(), module.state_dict())
    assert again.ticket.mask == ticket.ticket.mask


def test_checkpoints_are_of_the_plain_module_and_need_no_class_of_ours(uninterrupted: Any) -> None:
    folder, module, _ = uninterrupted
    checkpoint = torch.load(folder / "step=30.ckpt", weights_only=True)
    assert list(checkpoint["state_dict"]) == list(Module().state_dict())
    assert same(checkpoint["state_dict"], module.state_dict())
    assert set(checkpoint["callbacks"]["tombola.LotteryTicket"]) == {"tensors", "about"}


def test_what_is_saved_and_measured_at_the_end_of_a_level_is_trained_not_rewound(uninterrupted: Any) -> None:
    folder, _, ticket = uninterrupted
    end = torch.load(folder / "step=12.ckpt", weights_only=True)["state_dict"]
    start = ticket.ticket_at(0).start
    assert not torch.equal(end["head.weight"], start["head.weight"])
    kept = ticket.ticket_at(1).mask["head.weight"]
    assert end["head.weight"][kept].abs().min() >= end["head.weight"][~kept].abs().max()


def test_the_users_own_metrics_and_learning_rates_are_logged_as_they_were(tmp_path: Path) -> None:
    def names(folder: str, *callbacks: Any) -> list[str]:
        logger = CSVLogger(tmp_path / folder)
        monitor = LearningRateMonitor("step")
        made = trainer(tmp_path, *callbacks, monitor, logger=logger, log_every_n_steps=1, max_epochs=4)
        made.fit(Module(), Loader(), validation())
        return (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()[0].split(",")

    def ticket(log: bool = False) -> LotteryTicket:
        return LotteryTicket(levels=1, every="2ep", rate=0.5, log=log)

    class Short(Callback):
        """OneCycleLR of these modules has no more steps than a level."""

        def on_train_epoch_start(self, trainer: Any, *_: object) -> None:
            trainer.should_stop = trainer.current_epoch == 2

    plain = names("plain", Short())
    assert names("with", ticket()) == plain
    assert set(names("logged", ticket(log=True))) == {*plain, "tombola/level", "tombola/density"}


def test_a_training_too_short_for_all_levels_is_refused(tmp_path: Path) -> None:
    ticket = LotteryTicket(levels=3, every="2ep")
    with pytest.raises(InputError, match=r"Trainer\(max_epochs=5\) makes 40 steps, .* take 64: set max_epochs=8"):
        trainer(tmp_path, ticket, max_epochs=5).fit(Module(), Loader())
    with pytest.raises(InputError, match=r"Trainer\(max_steps=63\) makes 63 steps, .* take 64: set max_steps=64"):
        trainer(tmp_path, ticket, max_epochs=-1, max_steps=63).fit(Module(), Loader())


def test_a_quick_run_to_find_bugs_is_let_through(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer(tmp_path, LotteryTicket(levels=3, every="2ep"), fast_dev_run=True).fit(Module(), Loader(), validation())
    assert "training ended in level 0 of 3: the search is not finished" in caplog.text


def test_a_checkpoint_without_a_search_is_refused(tmp_path: Path) -> None:
    made = trainer(tmp_path, max_epochs=1)
    made.fit(Module(), Loader())
    made.save_checkpoint(tmp_path / "plain.ckpt")
    with pytest.raises(InputError, match="there is no search to go on with in this checkpoint"):
        trainer(tmp_path, LotteryTicket(levels=1, every="2ep")).fit(
            Module(), Loader(), ckpt_path=tmp_path / "plain.ckpt"
        )


def test_nothing_is_there_before_it_begins_and_the_callback_can_be_sent_to_processes() -> None:
    ticket = pickle.loads(pickle.dumps(LotteryTicket(levels=2, every="1ep")))
    assert ticket.search.levels == 2
    assert ticket.state_dict() == {}
    with pytest.raises(InputError, match="has not begun"):
        ticket.ticket  # noqa: B018


def test_the_module_is_left_as_it_was_but_for_its_weights(tmp_path: Path) -> None:
    module = Module()
    before = copy_of(module)
    fit(tmp_path, module, LotteryTicket(levels=1, every="4it"))
    assert list(module.state_dict()) == list(before)
    assert not any(layer._load_state_dict_post_hooks for layer in module.modules())
