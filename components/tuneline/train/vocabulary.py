"""Training on the embeddings of the tokens in use alone.

The embedding of a token that no text holds has a gradient of zero at every step, so that AdamW does nothing to it but
decay it. Such rows are half of the embedded checkpoint's parameters for a few thousand texts: they are set aside, and
decayed at the end by what all steps together would have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tuneline.config import TrainConfig
from tuneline.train.loop import rate_at, schedule
from tuneline.train.rates import embedding_factor

WORTH = 0.9
"""Above this share of the rows in use, none are set aside."""


@dataclass(frozen=True)
class SetAside:
    """The whole embedding as it was, and which of its rows train, in ascending order."""

    whole: torch.Tensor
    used: torch.Tensor
    padding: int | None

    def ids(self, rows: Sequence[Sequence[int]]) -> list[list[int]]:
        """Token ids as places among the rows that train."""
        place = {token: number for number, token in enumerate(self.used.tolist())}
        return [[place[token] for token in row] for row in rows]


def set_aside(network: Any, *splits: Sequence[Sequence[int]]) -> SetAside | None:
    """Leave the network only the embeddings of tokens that these texts hold; None where that is nearly all of them."""
    embedding: nn.Embedding = network.get_input_embeddings()
    padding = embedding.padding_idx
    tokens = {token for rows in splits for row in rows for token in row}
    if padding is not None:
        tokens.add(padding)
    if len(tokens) > WORTH * embedding.num_embeddings:
        return None
    whole = embedding.weight.detach()
    used = torch.tensor(sorted(tokens), device=whole.device)
    _put(embedding, whole[used].clone(), None if padding is None else sorted(tokens).index(padding))
    return SetAside(whole, used, padding)


def bring_back(network: Any, aside: SetAside, settings: TrainConfig, rows: int, steps: int) -> None:
    """The whole embedding again: what has trained, and the rest decayed as AdamW would have.

    Args:
        network: that `set_aside` has left with a part.
        aside: what it gave.
        settings: as trained.
        rows: rows of the training split.
        steps: optimizer steps that the weights are the result of.
    """
    embedding: nn.Embedding = network.get_input_embeddings()
    total, warmup = schedule(rows, settings)
    highest = settings.learning_rate * embedding_factor(network, settings.layer_decay)
    rates = [highest * rate_at(step, total, warmup) for step in range(steps)]
    weight = aside.whole * math.prod(1 - rate * settings.weight_decay for rate in rates)
    weight[aside.used] = embedding.weight.detach()
    _put(embedding, weight, aside.padding)


def _put(embedding: nn.Embedding, weight: torch.Tensor, padding: int | None) -> None:
    embedding.weight = nn.Parameter(weight, embedding.weight.requires_grad)
    embedding.num_embeddings, embedding.padding_idx = len(weight), padding
