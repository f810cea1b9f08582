"""A small BERT with random initial weights, trained with Hugging Face's Trainer.

The task is synthetic, so that no download is needed: is a film praised in the main clause of a sentence such as
"although the cast was not bad the plot was very dull"? "not" reverses the next word, and the other clause is
irrelevant. It is an easy task, not a test of language understanding.

With the defaults (3 replicates, 21 trainings, 58 s on one core) the dense network has 99.9%, and tickets match it
down to 8.0% of the weights, with 100%. At 4.9% they have 99.6%, one of the three 98.8%, and the test cannot tell.
"""

from __future__ import annotations

import random
import tempfile

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, Trainer, TrainingArguments

import tombola

THINGS = ["film", "plot", "cast", "music", "ending", "script", "camera", "pace", "humour", "dialogue"]
GOOD = ["good", "great", "lovely", "clever", "moving", "bright", "funny", "superb"]
BAD = ["bad", "awful", "dull", "silly", "boring", "grim", "weak", "clumsy"]
WORDS = ["[PAD]", "[CLS]", "the", "was", "not", "very", "but", "although", *THINGS, *GOOD, *BAD]
LONGEST = 14


def clause(praise: bool) -> list[str]:
    """Such as "the plot was not very clever", which is no praise."""
    negated = random.random() < 0.5
    word = random.choice(GOOD if praise != negated else BAD)
    return ["the", random.choice(THINGS), "was", *["not"] * negated, *["very"] * random.randint(0, 1), word]


def sentence() -> dict[str, Tensor]:
    """As the Trainer takes it: codes of words, which of them are no padding, and the label."""
    praise = random.random() < 0.5
    main, other = clause(praise), clause(random.random() < 0.5)
    orders = [[*other, "but", *main], ["although", *other, *main]]
    codes = [WORDS.index(word) for word in ["[CLS]", *random.choice(orders)]]
    padded = torch.tensor(codes + [WORDS.index("[PAD]")] * (LONGEST - len(codes)))
    return {"input_ids": padded, "attention_mask": (padded != 0).long(), "labels": torch.tensor(int(praise))}


random.seed(0)
sentences = [sentence() for _ in range(2400)]
training, held_out = sentences[:1600], sentences[1600:]


def make() -> nn.Module:
    """39,264 weights in linear layers; embeddings, which are not pruned, have 2,496 more."""
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=len(WORDS),
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=96,
            max_position_embeddings=LONGEST,
            type_vocab_size=1,
            initializer_range=0.1,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


def train(model: nn.Module) -> None:
    """6 epochs, 300 steps. The Trainer seeds everything anew: give it a seed that differs between replicates."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=6,
            per_device_train_batch_size=32,
            learning_rate=1e-3,
            seed=torch.initial_seed() % 2**32,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = Trainer(model, arguments, train_dataset=training)
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def evaluate(model: nn.Module) -> dict[str, float]:
    """Accuracy on the 800 sentences held out."""
    inputs = {name: torch.stack([sentence[name] for sentence in held_out]) for name in held_out[0]}
    said = model(**inputs)
    return {"accuracy": (said.logits.argmax(1) == inputs["labels"]).float().mean().item(), "loss": said.loss.item()}


def main(levels: int = 6, replicates: int = 3) -> tombola.SearchResult:
    """The encoder and its pooler are pruned; the classifier stays dense."""
    return tombola.find_ticket(
        make, train, evaluate=evaluate, levels=levels, rate=0.4, leave_out=["classifier"], replicates=replicates
    )


if __name__ == "__main__":
    ticket, levels = main()
    print(levels)
