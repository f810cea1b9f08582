"""Hugging Face's GPT-2, small and with random initial weights, on the same text as `tiny_gpt.py`.

Embeddings, one of which is the output too, are pruned as well: `include` adds them. The margin is 0.03 nats per
character, 1.5% of the dense network's loss. With the defaults (5 replicates, 30 trainings, 137 s on one core) tickets
win down to 27.5% of all weights: on the last tenth of the text, which chooses nothing, they have 2.045, and the dense
networks 2.042. At 17.9% they have 2.044, and the test cannot tell.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel

import tombola

CONTEXT, WIDTH, STEPS, BATCH, LR = 32, 64, 400, 12, 1e-2

text = Path(__file__).with_name("text.txt").read_text(encoding="utf-8")
characters = sorted(set(text))
codes = torch.tensor([characters.index(c) for c in text])
known, held_out, last_tenth = codes.split([len(codes) - 2 * (len(codes) // 10), len(codes) // 10, len(codes) // 10])


def make() -> nn.Module:
    """98,304 weights of two blocks, and 5,952 of embeddings."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(characters),
            n_positions=CONTEXT,
            n_embd=WIDTH,
            n_layer=2,
            n_head=4,
            initializer_range=0.1,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def loss(model: nn.Module, windows: Tensor) -> Tensor:
    """In nats per character; windows [B, CONTEXT + 1]."""
    return cross_entropy(model(windows[:, :-1]).logits.flatten(0, 1), windows[:, 1:].flatten())


def train(model: nn.Module) -> None:
    """400 steps of AdamW; the learning rate rises, then falls to 0."""
    optimizer = torch.optim.AdamW(model.parameters(), LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LR, total_steps=STEPS)
    windows = known.unfold(0, CONTEXT + 1, 1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(model, windows[torch.randint(len(windows), (BATCH,))]).backward()
        optimizer.step()
        schedule.step()


def evaluate(model: nn.Module) -> dict[str, float]:
    """On the ninth tenth of the text."""
    return {"loss": loss(model, held_out.unfold(0, CONTEXT + 1, CONTEXT)).item()}


def test(model: nn.Module) -> dict[str, float]:
    """On the last tenth of the text, which is judged and chooses nothing."""
    return {"loss": loss(model, last_tenth.unfold(0, CONTEXT + 1, CONTEXT)).item()}


def main(levels: int = 5, replicates: int = 5) -> tombola.SearchResult:
    """Blocks and embeddings are pruned by one threshold."""
    return tombola.find_ticket(
        make,
        train,
        evaluate=evaluate,
        test=test,
        levels=levels,
        rate=0.35,
        scope="global",
        include=["*wte", "*wpe"],
        replicates=replicates,
        margin=0.03,
    )


if __name__ == "__main__":
    ticket, levels = main()
    print(levels)
