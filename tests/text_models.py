"""Small classifiers of drawn-up sentences whose evidence is known, trained in seconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

GOOD = ("lovely", "brilliant", "delightful", "superb", "charming", "excellent")
BAD = ("dreadful", "tedious", "clumsy", "awful", "dismal", "shoddy")
NOT = ("not", "never")
PLAIN = (
    *(
        "the",
        "a",
        "this",
        "that",
        "film",
        "book",
        "play",
        "song",
        "actor",
        "story",
        "we",
        "they",
        "saw",
        "heard",
        "was",
    ),
    *("is", "and", "with", "in", "on", "of", "train", "table", "yesterday", "today", "at", "home", "friend", "long"),
)
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *PLAIN, *GOOD, *BAD, *NOT)
IDS = {word: i for i, word in enumerate(WORDS)}
LENGTH = 16
LABELS = ("bad", "good", "neither")


@dataclass(frozen=True)
class Sentence:
    """A drawn-up sentence: its words, its class, and which of its words decide."""

    words: tuple[str, ...]
    label: int
    evidence: tuple[int, ...]

    def ids(self, length: int = LENGTH) -> list[int]:
        """Return ids between the special tokens, padded."""
        found = [IDS["[CLS]"], *(IDS[w] for w in self.words), IDS["[SEP]"]]
        return found + [0] * (length - len(found))


def draw(count: int, seed: int, *, negated: bool = False, neither: bool = False) -> list[Sentence]:
    """Draw sentences of plain words with one word of evidence, with a negation before it, or with neither."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        words = [str(w) for w in rng.choice(PLAIN, rng.integers(5, LENGTH - 5))]
        label = int(rng.integers(2))
        at = int(rng.integers(1, len(words)))
        kind = (GOOD, BAD)[label if negated else 1 - label]
        put = [] if neither else [*([str(rng.choice(NOT))] if negated else []), str(rng.choice(kind))]
        words[at : at + len(put)] = put
        found.append(Sentence(tuple(words), 2 if neither else label, tuple(range(at, at + len(put)))))
    return found


class Classifier(nn.Module):
    """Word and position embeddings, a layer of attention or a convolution, and the mean over what is no padding."""

    def __init__(self, kind: str = "attention", width: int = 32) -> None:
        super().__init__()
        self.kind = kind
        self.words = nn.Embedding(len(WORDS), width, padding_idx=0)
        self.places = nn.Embedding(64, width)
        if kind == "attention":
            self.layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.0, activation="gelu", batch_first=True)
        elif kind == "convolution":
            self.layer = nn.Conv1d(width, width, 3, padding=1)
        else:
            self.layer = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(width, 3)

    def rest(self, rows: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return logits of rows, (N, 3)."""
        shown = (ids != 0).to(rows.dtype)[..., None]
        x = rows + self.places(torch.arange(rows.shape[1]))
        if self.kind == "attention":
            x = self.layer(x, src_key_padding_mask=ids == 0)
        elif self.kind == "convolution":
            x = torch.relu(self.layer((x * shown).transpose(1, 2))).transpose(1, 2)
        else:
            x = self.layer(x * shown)[0]
        return self.head((x * shown).sum(1) / shown.sum(1))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return logits of ids, (N, 3)."""
        return self.rest(self.words(ids), ids)


def trained(kind: str = "attention", *, steps: int = 400, seed: int = 0) -> Classifier:
    """Return a classifier trained on sentences with and without negation."""
    torch.manual_seed(seed)
    data = [*draw(2000, seed + 1), *draw(1000, seed + 2, negated=True), *draw(1000, seed + 3, neither=True)]
    x, y = torch.tensor([s.ids() for s in data]), torch.tensor([s.label for s in data])
    net = Classifier(kind)
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.02)
    order = np.random.default_rng(seed)
    net.train()
    for _ in range(steps):
        rows = torch.tensor(order.choice(len(data), 64, replace=False))
        loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()
