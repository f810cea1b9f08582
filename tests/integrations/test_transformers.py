from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

import tombola
from tests.integrations.helpers import Witness, copy_of, same
from tombola.integrations.transformers import FILE, LotteryTicketCallback
from tombola.pruning.hold import hold
from tombola.pruning.mask import prunable
from tombola.utils.errors import InputError
from tombola.utils.files import read_tensors

SMALL: dict[str, Any] = {"levels": 2, "every": "8it", "rewind": "2it", "rate": 0.5}


class Tokens(Dataset[dict[str, Tensor]]):
    """Of sixteen tokens, those that say the class are somewhere in each sentence."""

    def __init__(self, examples: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.tokens = torch.randint(4, 16, (examples, 6), generator=generator)
        self.labels = torch.randint(2, (examples,), generator=generator)
        self.tokens[:, :3] = (self.labels + 2).unsqueeze(1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.labels[index]}


def bert(dropout: float = 0.1) -> BertForSequenceClassification:
    sizes = {"vocab_size": 16, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    config = BertConfig(**sizes, **rates, intermediate_size=48, max_position_embeddings=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BertForSequenceClassification(config)


def accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}


class Watching(TrainerCallback):
    """Has a witness know where the search is."""

    def __init__(self, ticket: LotteryTicketCallback, witness: Witness) -> None:
        self.ticket, self.witness = ticket, witness

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.witness.rounds = self.ticket._rounds


def trainer(folder: Path, model: Any, *callbacks: Any, optimizers: Any = (None, None), **options: Any) -> Trainer:
    usual: dict[str, Any] = {
        "learning_rate": 3e-3,
        "max_steps": 20,
        "per_device_train_batch_size": 16,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 1,
    }
    arguments = TrainingArguments(output_dir=str(folder), **usual | options)
    return Trainer(
        model,
        arguments,
        train_dataset=Tokens(80),
        eval_dataset=Tokens(100, seed=1),
        compute_metrics=accuracy,
        callbacks=list(callbacks),
        optimizers=optimizers,
    )


def train(folder: Path, model: Any, ticket: LotteryTicketCallback, resume: Any = None, **options: Any) -> Trainer:
    """A whole training, with everything that should be true of each checked on the way."""
    with Witness(model) as witness:
        made = trainer(folder, model, ticket, Watching(ticket, witness), **options)
        made.train(resume_from_checkpoint=resume)
    assert not witness.dirty
    if resume is None:
        witness.assert_rewound()
    return made


def test_a_search_within_a_training_finds_a_ticket(tmp_path: Path) -> None:
    model, ticket = bert(), LotteryTicketCallback(levels=2, every="30it", rewind="5it", rate=0.5, scope="global")
    before = copy_of(model)
    made = train(tmp_path, model, ticket, max_steps=200, eval_strategy="steps", eval_steps=10)
    assert made.state.global_step == 30 + 2 * 25
    size = sum(before[name].numel() for name in prunable(model))
    assert [row.weights for row in ticket.levels] == [size, size // 2, size // 4]
    assert all(row.metrics["eval_accuracy"] > 0.9 for row in ticket.levels)
    assert not any("runtime" in name or "per_second" in name for row in ticket.levels for name in row.metrics)
    assert list(model.state_dict()) == list(before)
    for name, kept in ticket.ticket.mask.items():
        assert not model.state_dict()[name][~kept].any()
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
def test_whatever_the_trainer_does_levels_begin_where_the_dense_network_was(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    ticket = LotteryTicketCallback(**SMALL)
    assert train(tmp_path, bert(), ticket, **options).state.global_step == 20
    assert ticket.ticket.mask.density == pytest.approx(0.25, abs=0.001)


def test_epochs_are_those_of_the_trainer(tmp_path: Path) -> None:
    ticket = LotteryTicketCallback(levels=1, every="2ep", rewind="1ep", rate=0.5)
    assert train(tmp_path, bert(), ticket, gradient_accumulation_steps=2).state.global_step == 6 + 3


def test_a_schedule_of_ones_own_ends_with_each_level(tmp_path: Path) -> None:
    model, ticket = bert(), LotteryTicketCallback(**SMALL)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=8)
    rates = []

    class Look(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:  # noqa: ARG002
            rates.append(logs.get("learning_rate"))

    trainer(tmp_path, model, ticket, Look(), optimizers=(optimizer, schedule)).train()
    dense = [0.01 * (1 - n / 8) for n in range(8)]
    assert rates[:20] == pytest.approx(dense + 2 * dense[2:])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A whole search, and a checkpoint of every step."""
    folder = tmp_path_factory.mktemp("whole")
    model, ticket = bert(), LotteryTicketCallback(**SMALL)
    train(folder, model, ticket, save_strategy="steps", save_steps=1, eval_strategy="steps", eval_steps=4)
    return folder, model, ticket


@pytest.mark.parametrize("step", [1, 3, 8, 9, 14, 15, 20])
def test_a_resumed_training_gives_the_same_bits_dropout_included(
    uninterrupted: Any, tmp_path: Path, step: int
) -> None:
    folder, model, ticket = uninterrupted
    resumed, again = bert(), LotteryTicketCallback(**SMALL)
    checkpoint = str(folder / f"checkpoint-{step}")
    elsewhere: dict[str, Any] = {"resume_from_checkpoint": checkpoint, "eval_strategy": "steps", "eval_steps": 4}
    train(tmp_path, resumed, again, resume=checkpoint, **elsewhere)
    assert same(resumed.state_dict(), model.state_dict())
    assert again.ticket.mask == ticket.ticket.mask
    assert same(again.ticket.start, ticket.ticket.start)
    assert again.levels == ticket.levels


def test_the_last_checkpoint_is_found_where_the_trainer_finds_it(tmp_path: Path) -> None:
    def searched(**options: Any) -> Trainer:
        return trainer(
            tmp_path, bert(), LotteryTicketCallback(**SMALL), save_strategy="steps", save_steps=5, **options
        )

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            control.should_training_stop = state.global_step == 12

    begun = searched()
    begun.add_callback(Stop())
    begun.train()
    resumed = searched()
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 20
    whole = bert()
    trainer(tmp_path / "whole", whole, LotteryTicketCallback(**SMALL)).train()
    assert same(resumed.model.state_dict(), whole.state_dict())


def test_checkpoints_are_of_the_plain_model(uninterrupted: Any) -> None:
    folder, model, _ = uninterrupted
    loaded = BertForSequenceClassification.from_pretrained(folder / "checkpoint-20")
    assert same(loaded.state_dict(), model.state_dict())
    tensors, about = read_tensors(folder / "checkpoint-20" / FILE)
    assert about["step"] == 20
    assert tensors


def test_a_checkpoint_without_a_search_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path, bert(), max_steps=3, save_strategy="steps", save_steps=3).train()
    with pytest.raises(InputError, match=r"checkpoint-3/tombola.safetensors should hold that of step 3"):
        trainer(tmp_path, bert(), LotteryTicketCallback(**SMALL)).train(resume_from_checkpoint=True)


def test_the_search_of_another_step_is_not_taken(uninterrupted: Any, tmp_path: Path) -> None:
    folder, _, _ = uninterrupted
    other = str(folder / "checkpoint-9")
    with pytest.raises(InputError, match="should hold that of step 14"):
        trainer(tmp_path, bert(), LotteryTicketCallback(**SMALL), resume_from_checkpoint=other).train(
            str(folder / "checkpoint-14")
        )


def test_a_damaged_search_is_refused(tmp_path: Path) -> None:
    ticket = LotteryTicketCallback(**SMALL)
    trainer(tmp_path, bert(), ticket, save_strategy="steps", save_steps=10).train()
    file = tmp_path / "checkpoint-10" / FILE
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="damaged"):
        trainer(tmp_path, bert(), LotteryTicketCallback(**SMALL)).train(str(tmp_path / "checkpoint-10"))


def test_the_last_step_is_measured_and_saved_when_the_trainer_had_more_to_make(tmp_path: Path) -> None:
    ticket = LotteryTicketCallback(**SMALL)
    options = {"max_steps": 50, "save_strategy": "steps", "save_steps": 7, "eval_strategy": "steps", "eval_steps": 7}
    made = train(tmp_path, bert(), ticket, **options)
    assert made.state.global_step == 20
    assert (tmp_path / "checkpoint-20" / FILE).exists()
    assert [entry["step"] for entry in made.state.log_history if "eval_loss" in entry] == [7, 14, 20]
    again = LotteryTicketCallback(**SMALL)
    with pytest.raises(InputError, match="finished: its ticket is in the callback"):
        trainer(tmp_path, bert(), again, **options).train(resume_from_checkpoint=True)
    assert again.ticket.mask == ticket.ticket.mask


def test_what_is_logged_has_the_same_names(tmp_path: Path) -> None:
    def names(*callbacks: Any) -> list[list[str]]:
        made = trainer(tmp_path, bert(), *callbacks, eval_strategy="epoch")
        made.train()
        return [sorted(entry) for entry in made.state.log_history]

    assert names(LotteryTicketCallback(**SMALL)) == names()


@pytest.mark.parametrize(
    ("search", "options", "message"),
    [
        ({}, {"max_steps": 19}, "the Trainer makes 19 steps, .* take 20: set max_steps=20"),
        ({}, {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps"}, "set it to False"),
        ({"leave_out": ["cls"]}, {}, 'unknown layer "cls"'),
    ],
)
def test_what_would_not_work_is_refused(
    tmp_path: Path, search: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        trainer(tmp_path, bert(), LotteryTicketCallback(**SMALL | search), **options).train()


def test_a_training_that_ends_early_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            control.should_training_stop = True

    trainer(tmp_path, bert(), LotteryTicketCallback(**SMALL), Stop()).train()
    assert "training ended in level 0 of 2" in caplog.text


def test_a_hold_goes_through_accelerate(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True, project_dir=tmp_path)
    model = bert()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.1)
    model, optimizer, batches = accelerator.prepare(model, optimizer, DataLoader(Tokens(64), 16))
    mask = tombola.Mask(
        {
            name: torch.rand(tensor.shape) < 0.5
            for name, tensor in bert().named_parameters()
            if name in prunable(bert())
        }
    )
    with hold(model, mask):
        for batch in batches:
            accelerator.backward(model(**batch).loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            state = accelerator.unwrap_model(model).state_dict()
            assert not any(state[name][~kept].any() for name, kept in mask.items())
    assert list(state) == list(bert().state_dict())
