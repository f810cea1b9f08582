"""An LSTM language model that reads Alice's Adventures in Wonderland, character by character.

`text.txt` is the first chapter and part of the second (Lewis Carroll, 1865; in the public domain). The recurrent
layers, the embedding and the output are pruned by one threshold, as in the language models of Yu et al. (2020,
"Playing the lottery with rewards and multiple languages", section 3), and weights are rewound to step 20.

The margin is 0.03 nats per character, 1.5% of the dense network's loss. With the defaults (5 replicates, 60
trainings, 5 min on one core) tickets have a loss of 2.010 at 17.9% of the weights, where the dense network has 1.987
and the control `reinit` 2.192: the means are within the margin, but 5 replicates cannot tell. Drawing characters by
their frequency has a loss of 3.06.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import tombola

CONTEXT, EMBEDDING, HIDDEN, STEPS, BATCH, LR, REWIND = 32, 32, 96, 400, 16, 1e-2, 20

text = Path(__file__).with_name("text.txt").read_text(encoding="utf-8")
characters = sorted(set(text))
codes = torch.tensor([characters.index(c) for c in text])
known, held_out, unseen = codes.split(
    [int(0.8 * len(codes)), int(0.1 * len(codes)), len(codes) - int(0.9 * len(codes))]
)


class LSTMLanguageModel(nn.Module):
    """Codes [B, T] -> logits of the character after each [B, T, characters]."""

    def __init__(self) -> None:
        super().__init__()
        self.characters = nn.Embedding(len(characters), EMBEDDING)
        self.lstm = nn.LSTM(EMBEDDING, HIDDEN, num_layers=2, batch_first=True)
        self.head = nn.Linear(HIDDEN, len(characters))

    def forward(self, codes: Tensor) -> Tensor:
        outputs, _ = self.lstm(self.characters(codes))  # [B, T, HIDDEN]
        return self.head(outputs)


def make() -> nn.Module:
    return LSTMLanguageModel()


def loss(model: nn.Module, windows: Tensor) -> Tensor:
    """In nats per character; windows [B, CONTEXT + 1]."""
    return cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())


def train(model: nn.Module, begin: int = 0) -> None:
    """400 steps of Adam, from the step `begin` on; the learning rate rises for 100 steps, then falls to 0."""
    optimizer = torch.optim.Adam(model.parameters(), LR)
    windows = known.unfold(0, CONTEXT + 1, 1)
    for step in range(begin, STEPS):
        for group in optimizer.param_groups:
            group["lr"] = LR * min((step + 1) / 100, (STEPS - step) / (STEPS - 100))
        optimizer.zero_grad()
        loss(model, windows[torch.randint(len(windows), (BATCH,))]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def evaluate(model: nn.Module) -> dict[str, float]:
    """On the ninth tenth of the text."""
    return {"loss": loss(model, held_out.unfold(0, CONTEXT + 1, CONTEXT)).item()}


def test(model: nn.Module) -> dict[str, float]:
    """On the last tenth, which is judged and chooses nothing."""
    return {"loss": loss(model, unseen.unfold(0, CONTEXT + 1, CONTEXT)).item()}


def main(levels: int = 5, replicates: int = 5) -> tombola.SearchResult:
    """Down to 11.6% of the weights, embedding included."""
    return tombola.find_ticket(
        make,
        train,
        evaluate=evaluate,
        test=test,
        levels=levels,
        rate=0.35,
        scope="global",
        include=["characters"],
        replicates=replicates,
        rewind=REWIND,
        margin=0.03,
        controls={"reinit": 1},
    )


if __name__ == "__main__":
    ticket, levels = main()
    print(levels)
