"""A small BERT, sentences to classify, and a Trainer of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments


class Tokens(Dataset[dict[str, Tensor]]):
    """Sentences of six of sixteen tokens; the first three tokens give the class."""

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
