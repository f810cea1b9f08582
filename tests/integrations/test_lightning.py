from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import pytorch_lightning
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from tests.support.errors import raises_input_error
from tests.support.lightning_modules import (
    EPOCH,
    ByEpoch,
    Loader,
    Manual,
    Module,
    Plateau,
    Steps,
    fit,
    trainer,
    validation,
)
from tests.support.step_recorder import copy_state
from tests.support.training import same_state
from tombola.integrations.lightning import LotteryTicket
from tombola.pruning.mask import prunable

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        ".*isinstance.treespec, LeafSpec.",
        "Be aware that when using `ckpt_path`",
        "You defined a `validation_step` but have no",
    )
]


def test_a_search_within_a_training_gives_a_ticket(tmp_path: Path) -> None:
    module, ticket = Module(), LotteryTicket(levels=3, every="2ep", rewind="5it", rate=0.4)
    made = fit(tmp_path, module, ticket)
    assert made.global_step == 16 + 3 * 11
    left = [64 * 32 + 32 * 10]
    sizes = [64 * 32, 32 * 10]
    for _ in range(3):
        sizes = [size - round(0.4 * size) for size in sizes]
        left.append(sum(sizes))
    assert [row.weights for row in ticket.levels] == left
    assert all("val_accuracy" in row.metrics for row in ticket.levels)
    assert ticket.ticket.mask.count == left[-1]
    assert list(ticket.ticket.mask) == prunable(Module())
    for name, kept in ticket.ticket.mask.items():
        assert not module.state_dict()[name][~kept].any()
    assert ticket.ticket.provenance["recipe"]["functions"]["train"].endswith(":Trainer.fit")
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
def test_levels_are_rewound_with_every_option_of_the_trainer(
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


def test_several_optimizers_are_rewound(tmp_path: Path) -> None:
    module, ticket = Manual(), LotteryTicket(levels=2, every="2ep", rewind="1ep", rate=0.5)
    states: dict[tuple[int, int], list[Any]] = {}

    class Look(Callback):
        def on_train_batch_start(self, trainer: Any, *_: object) -> None:
            search = ticket._active
            states[search.level, search.iteration] = [copy.deepcopy(o.state_dict()) for o in trainer.optimizers]

    made = fit(tmp_path, module, ticket, Look())
    assert made.global_step == 2 * 4 * EPOCH
    for level in (1, 2):
        expected = copy.deepcopy(states[0, EPOCH])
        for state, name in zip(
            expected, ("body.0.weight", "head.weight"), strict=True
        ):  # the first of each optimizer
            for value in state["state"][0].values():
                if isinstance(value, Tensor) and value.dim():
                    value.masked_fill_(~ticket.ticket_at(level).mask[name], 0)
        assert str(states[level, EPOCH]) == str(expected)
    assert str(states[0, EPOCH]) != str(states[0, EPOCH + 1])


def test_the_package_pytorch_lightning_works_too(tmp_path: Path) -> None:
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
    """Has another key in checkpoints."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A whole search, with a checkpoint of every step and at the end of every epoch."""
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
def test_a_resumed_training_gives_the_same_bits(uninterrupted: Any, tmp_path: Path, name: str) -> None:
    folder, module, ticket = uninterrupted
    resumed, again = Module(), LotteryTicket(levels=2, every="12it", rewind="3it", rate=0.5)
    made = fit(tmp_path, resumed, again, ckpt_path=folder / f"{name}.ckpt")
    assert made.global_step == 12 + 2 * 9
    assert same_state(resumed.state_dict(), module.state_dict())
    assert again.ticket.mask == ticket.ticket.mask
    assert same_state(again.ticket.start, ticket.ticket.start)
    assert [row.weights for row in again.levels] == [row.weights for row in ticket.levels]
    if name not in ("step=8", "step=16"):  # saved before validation, which Lightning then omits
        assert again.levels == ticket.levels


def test_resuming_a_finished_search_trains_no_step(uninterrupted: Any, tmp_path: Path) -> None:
    folder, module, ticket = uninterrupted
    resumed, again = Module(), LotteryTicket(levels=2, every="12it", rewind="3it", rate=0.5)
    assert fit(tmp_path, resumed, again, ckpt_path=folder / "step=30.ckpt").global_step == 30
    assert same_state(resumed.state_dict(), module.state_dict())
    assert again.ticket.mask == ticket.ticket.mask


def test_checkpoints_have_the_names_of_the_plain_module_and_are_weights_only(uninterrupted: Any) -> None:
    folder, module, _ = uninterrupted
    checkpoint = torch.load(folder / "step=30.ckpt", weights_only=True)
    assert list(checkpoint["state_dict"]) == list(Module().state_dict())
    assert same_state(checkpoint["state_dict"], module.state_dict())
    assert set(checkpoint["callbacks"]["tombola.LotteryTicket"]) == {"tensors", "about"}


def test_the_checkpoint_at_the_end_of_a_level_has_its_trained_weights(uninterrupted: Any) -> None:
    folder, _, ticket = uninterrupted
    end = torch.load(folder / "step=12.ckpt", weights_only=True)["state_dict"]
    start = ticket.ticket_at(0).start
    assert not torch.equal(end["head.weight"], start["head.weight"])
    kept = ticket.ticket_at(1).mask["head.weight"]
    assert end["head.weight"][kept].abs().min() >= end["head.weight"][~kept].abs().max()


def test_the_users_metrics_are_logged_under_the_same_names(tmp_path: Path) -> None:
    def names(folder: str, *callbacks: Any) -> list[str]:
        logger = CSVLogger(tmp_path / folder)
        monitor = LearningRateMonitor("step")
        made = trainer(tmp_path, *callbacks, monitor, logger=logger, log_every_n_steps=1, max_epochs=4)
        made.fit(Module(), Loader(), validation())
        return (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()[0].split(",")

    def ticket(log: bool = False) -> LotteryTicket:
        return LotteryTicket(levels=1, every="2ep", rate=0.5, log=log)

    class Short(Callback):
        """Stops before OneCycleLR has no more steps."""

        def on_train_epoch_start(self, trainer: Any, *_: object) -> None:
            trainer.should_stop = trainer.current_epoch == 2

    plain = names("plain", Short())
    assert names("with", ticket()) == plain
    assert set(names("logged", ticket(log=True))) == {*plain, "tombola/level", "tombola/density"}


def test_a_training_that_is_too_short_is_refused(tmp_path: Path) -> None:
    ticket = LotteryTicket(levels=3, every="2ep")
    with raises_input_error("max_epochs=5", 40, 64, "max_epochs=8"):
        trainer(tmp_path, ticket, max_epochs=5).fit(Module(), Loader())
    with raises_input_error("max_steps=63", "max_steps=64"):
        trainer(tmp_path, ticket, max_epochs=-1, max_steps=63).fit(Module(), Loader())


def test_fast_dev_run_is_allowed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer(tmp_path, LotteryTicket(levels=3, every="2ep"), fast_dev_run=True).fit(Module(), Loader(), validation())
    assert "level 0 of 3" in caplog.text


def test_a_checkpoint_without_a_search_is_refused(tmp_path: Path) -> None:
    made = trainer(tmp_path, max_epochs=1)
    made.fit(Module(), Loader())
    made.save_checkpoint(tmp_path / "plain.ckpt")
    with raises_input_error("checkpoint", "LotteryTicket"):
        trainer(tmp_path, LotteryTicket(levels=1, every="2ep")).fit(
            Module(), Loader(), ckpt_path=tmp_path / "plain.ckpt"
        )


def test_a_new_callback_has_no_ticket_and_can_be_pickled() -> None:
    ticket = pickle.loads(pickle.dumps(LotteryTicket(levels=2, every="1ep")))
    assert ticket.config.levels == 2
    assert ticket.state_dict() == {}
    with raises_input_error("not begun"):
        ticket.ticket  # noqa: B018


def test_only_the_weights_of_the_module_change(tmp_path: Path) -> None:
    module = Module()
    before = copy_state(module)
    fit(tmp_path, module, LotteryTicket(levels=1, every="4it"))
    assert list(module.state_dict()) == list(before)
    assert not any(layer._load_state_dict_post_hooks for layer in module.modules())
