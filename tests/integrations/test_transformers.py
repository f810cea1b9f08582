from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import BertForSequenceClassification, Trainer, TrainerCallback

import tombola
from tests.support.errors import raises_input_error
from tests.support.step_recorder import StepRecorder, copy_state
from tests.support.training import same_state
from tests.support.transformers_trainer import Tokens, bert, trainer
from tombola.integrations.transformers import FILE, LotteryTicketCallback
from tombola.pruning.hold import hold
from tombola.pruning.mask import prunable
from tombola.utils.files import read_tensors

SMALL: dict[str, Any] = {"levels": 2, "every": "8it", "rewind": "2it", "rate": 0.5}


def train(folder: Path, model: Any, ticket: LotteryTicketCallback, resume: Any = None, **options: Any) -> Trainer:
    """A training in which pruned weights stay zero and, unless it is resumed, every level is rewound."""
    with StepRecorder(model, lambda: ticket._running) as recorder:
        made = trainer(folder, model, ticket, **options)
        made.train(resume_from_checkpoint=resume)
    assert not recorder.not_zero
    if resume is None:
        recorder.assert_rewound()
    return made


def test_a_search_within_a_training_gives_a_ticket(tmp_path: Path) -> None:
    model, ticket = bert(), LotteryTicketCallback(levels=2, every="12it", rewind="3it", rate=0.5, scope="global")
    before = copy_state(model)
    made = train(tmp_path, model, ticket, max_steps=40, eval_strategy="steps", eval_steps=6)
    assert made.state.global_step == 12 + 2 * 9
    size = sum(before[name].numel() for name in prunable(model))
    assert [row.weights for row in ticket.levels] == [size, size // 2, size // 4]
    assert all("eval_accuracy" in row.metrics for row in ticket.levels)
    assert not any("runtime" in name or "per_second" in name for row in ticket.levels for name in row.metrics)
    assert list(model.state_dict()) == list(before)
    for name, kept in ticket.ticket.mask.items():
        assert not model.state_dict()[name][~kept].any()
    assert ticket.ticket.provenance["recipe"]["functions"]["train"] == "transformers:Trainer.train"
    ticket.ticket.save(tmp_path / "ticket.safetensors")
    tombola.Ticket.load(tmp_path / "ticket.safetensors").into(bert())


@pytest.mark.parametrize(
    "options",
    [
        {"gradient_accumulation_steps": 2},
        {"optim": "adafactor"},
        {"optim": "sgd", "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 4},
        {"lr_scheduler_type": "cosine", "bf16": True},
    ],
)
def test_levels_are_rewound_with_every_option_of_the_trainer(tmp_path: Path, options: dict[str, Any]) -> None:
    ticket = LotteryTicketCallback(**SMALL)
    assert train(tmp_path, bert(), ticket, **options).state.global_step == 20
    assert ticket.ticket.mask.density == pytest.approx(0.25, abs=0.001)


def test_epochs_are_those_of_the_trainer(tmp_path: Path) -> None:
    ticket = LotteryTicketCallback(levels=1, every="2ep", rewind="1ep", rate=0.5)
    assert train(tmp_path, bert(), ticket, gradient_accumulation_steps=2).state.global_step == 6 + 3


def test_a_given_scheduler_ends_with_each_level(tmp_path: Path) -> None:
    model, ticket = bert(), LotteryTicketCallback(**SMALL)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=8)
    rates = []

    class Look(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:  # noqa: ARG002
            rates.append(logs.get("learning_rate"))

    trainer(tmp_path, model, ticket, Look(), optimizers=(optimizer, scheduler)).train()
    dense = [0.01 * (1 - n / 8) for n in range(8)]
    assert rates[:20] == pytest.approx(dense + 2 * dense[2:])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A whole search, with a checkpoint of every step."""
    folder = tmp_path_factory.mktemp("whole")
    model, ticket = bert(), LotteryTicketCallback(**SMALL)
    train(folder, model, ticket, save_strategy="steps", save_steps=1, eval_strategy="steps", eval_steps=4)
    return folder, model, ticket


@pytest.mark.parametrize("step", [1, 3, 8, 9, 14, 15, 20])
def test_a_resumed_training_gives_the_same_bits_with_dropout(uninterrupted: Any, tmp_path: Path, step: int) -> None:
    folder, model, ticket = uninterrupted
    resumed, again = bert(), LotteryTicketCallback(**SMALL)
    checkpoint = str(folder / f"checkpoint-{step}")
    elsewhere: dict[str, Any] = {"resume_from_checkpoint": checkpoint, "eval_strategy": "steps", "eval_steps": 4}
    train(tmp_path, resumed, again, resume=checkpoint, **elsewhere)
    assert same_state(resumed.state_dict(), model.state_dict())
    assert again.ticket.mask == ticket.ticket.mask
    assert same_state(again.ticket.start, ticket.ticket.start)
    assert again.levels == ticket.levels


def test_resume_from_checkpoint_true_finds_the_last_checkpoint(uninterrupted: Any, tmp_path: Path) -> None:
    def searched() -> Trainer:
        options: dict[str, Any] = {
            "save_strategy": "steps",
            "save_steps": 5,
            "eval_strategy": "steps",
            "eval_steps": 4,
        }
        return trainer(tmp_path, bert(), LotteryTicketCallback(**SMALL), **options)

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            control.should_training_stop = state.global_step == 12

    begun = searched()
    begun.add_callback(Stop())
    begun.train()
    resumed = searched()
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 20
    assert same_state(resumed.model.state_dict(), uninterrupted[1].state_dict())


def test_checkpoints_have_the_names_of_the_plain_model(uninterrupted: Any) -> None:
    folder, model, _ = uninterrupted
    loaded = BertForSequenceClassification.from_pretrained(folder / "checkpoint-20")
    assert same_state(loaded.state_dict(), model.state_dict())
    tensors, about = read_tensors(folder / "checkpoint-20" / FILE)
    assert about["step"] == 20
    assert tensors


def test_a_checkpoint_without_a_search_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path, bert(), max_steps=3, save_strategy="steps", save_steps=3).train()
    with raises_input_error("checkpoint-3/tombola.safetensors", "step 3"):
        trainer(tmp_path, bert(), LotteryTicketCallback(**SMALL)).train(resume_from_checkpoint=True)


def test_the_search_of_another_step_is_refused(uninterrupted: Any, tmp_path: Path) -> None:
    folder, _, _ = uninterrupted
    other = str(folder / "checkpoint-9")
    with raises_input_error("step 14"):
        trainer(tmp_path, bert(), LotteryTicketCallback(**SMALL), resume_from_checkpoint=other).train(
            str(folder / "checkpoint-14")
        )


def test_a_damaged_search_is_refused(uninterrupted: Any, tmp_path: Path) -> None:
    shutil.copytree(uninterrupted[0] / "checkpoint-10", tmp_path / "checkpoint-10")
    file = tmp_path / "checkpoint-10" / FILE
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with raises_input_error("damaged"):
        trainer(tmp_path, bert(), LotteryTicketCallback(**SMALL)).train(str(tmp_path / "checkpoint-10"))


def test_the_last_step_is_evaluated_and_saved_before_max_steps(tmp_path: Path) -> None:
    ticket = LotteryTicketCallback(**SMALL)
    options = {"max_steps": 50, "save_strategy": "steps", "save_steps": 7, "eval_strategy": "steps", "eval_steps": 7}
    made = train(tmp_path, bert(), ticket, **options)
    assert made.state.global_step == 20
    assert (tmp_path / "checkpoint-20" / FILE).exists()
    assert [entry["step"] for entry in made.state.log_history if "eval_loss" in entry] == [7, 14, 20]
    again = LotteryTicketCallback(**SMALL)
    with raises_input_error("finished", "ticket"):
        trainer(tmp_path, bert(), again, **options).train(resume_from_checkpoint=True)
    assert again.ticket.mask == ticket.ticket.mask


def test_the_users_metrics_are_logged_under_the_same_names(tmp_path: Path) -> None:
    def names(*callbacks: Any) -> list[list[str]]:
        made = trainer(tmp_path, bert(), *callbacks, eval_strategy="epoch")
        made.train()
        return [sorted(entry) for entry in made.state.log_history]

    assert names(LotteryTicketCallback(**SMALL)) == names()


@pytest.mark.parametrize(
    ("search", "options", "facts"),
    [
        ({}, {"max_steps": 19}, [19, "max_steps=20"]),
        ({}, {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps"}, ["load_best"]),
        ({"leave_out": ["cls"]}, {}, ['"cls"']),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tmp_path: Path, search: dict[str, Any], options: dict[str, Any], facts: list[Any]
) -> None:
    with raises_input_error(*facts):
        trainer(tmp_path, bert(), LotteryTicketCallback(**SMALL | search), **options).train()


def test_a_training_that_ends_early_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            control.should_training_stop = True

    trainer(tmp_path, bert(), LotteryTicketCallback(**SMALL), Stop()).train()
    assert "level 0 of 2" in caplog.text


def test_a_held_model_trains_with_accelerate(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True, project_dir=tmp_path)
    model = bert()
    mask = tombola.Mask({name: torch.rand(kept.shape) < 0.5 for name, kept in tombola.Mask.full(model).items()})
    optimizer = torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.1)
    model, optimizer, batches = accelerator.prepare(model, optimizer, DataLoader(Tokens(64), 16))
    with hold(model, mask):
        for batch in batches:
            accelerator.backward(model(**batch).loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            state = accelerator.unwrap_model(model).state_dict()
            assert not any(state[name][~kept].any() for name, kept in mask.items())
    assert list(state) == list(bert().state_dict())
