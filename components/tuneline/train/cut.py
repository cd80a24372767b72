"""A network parted where its frozen part ends: what the lower part gives for token rows, and the upper part's answer.

The upper part runs as the family's own code has it, with the states in the place of the lower layers. The states are
one vector a token below a layer, [T, width], or one vector a text where the whole encoder is frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tuneline.config import TrainConfig
from tuneline.fused import Encoder, encoder_of
from tuneline.packing import PackedClassifier, Rows, instead_of
from tuneline.train.freezing import layers_place

Counts = tuple[int, ...]


class AboveEncoder(nn.Module):
    """The head alone, above a frozen encoder.

    Args:
        packed: the classifier. Parameters keep the names that they have there.
    """

    cut = -1
    """Layers below; -1 is all of them, and what follows the last one."""

    def __init__(self, packed: PackedClassifier) -> None:
        super().__init__()
        self.network, self.packed = packed.network, packed

    def counts(self, lengths: Sequence[int]) -> list[int]:
        """States of each text."""
        return [1] * len(lengths)

    def dtype(self, low: bool) -> torch.dtype:
        """What states are kept in: here in fp32, since they are few."""
        del low
        return torch.float32

    def below(self, rows: Rows, pair_at: Sequence[int] | None = None) -> torch.Tensor:
        """The states of token rows, [states, width]."""
        return self.packed.encode(rows, pair_at)[:, 0]

    def forward(self, states: torch.Tensor, counts: Counts) -> torch.Tensor:
        """Logits [texts, labels] of states."""
        del counts
        return self.packed.answer(states[:, None].to(self.packed.device))


class AboveLayer(AboveEncoder):
    """The upper layers and the head.

    Args:
        packed: the classifier.
        cut: layers below.
    """

    def __init__(self, packed: PackedClassifier, cut: int) -> None:
        super().__init__(packed)
        self.cut = cut

    def counts(self, lengths: Sequence[int]) -> list[int]:
        """See AboveEncoder: one a token."""
        return list(lengths)

    def dtype(self, low: bool) -> torch.dtype:
        """See AboveEncoder: what the layers hand on."""
        return torch.bfloat16 if low else torch.float32

    def below(self, rows: Rows, pair_at: Sequence[int] | None = None) -> torch.Tensor:
        """See AboveEncoder."""
        seen: list[torch.Tensor] = []
        with self._stopping(seen.append) if self.packed.fused else self._layers(self.cut, None, _Catch(seen.append)):
            self.packed.encode(rows, pair_at)
        return seen[0]

    def forward(self, states: torch.Tensor, counts: Counts) -> torch.Tensor:
        """See AboveEncoder. The embeddings are asked for token 0 in every place, and what they give is passed over."""
        rows, states = [[0] * count for count in counts], states.to(self.packed.device)
        with self._starting(states) if self.packed.fused else self._layers(None, self.cut, _Give(states)):
            return self.packed(rows)

    @contextmanager
    def _stopping(self, catch: Callable[[torch.Tensor], Any]) -> Iterator[None]:
        encoder = encoder_of(self.network)
        own: Encoder = encoder.forward

        def run(hidden_states: torch.Tensor, *_: Any, segments: Counts, **__: Any) -> Any:
            catch(own.layers_before(hidden_states[0], segments, 0, self.cut))
            return own.output(hidden_states[0, : len(segments)])

        with instead_of(encoder, run):
            yield

    @contextmanager
    def _starting(self, states: torch.Tensor) -> Iterator[None]:
        encoder = encoder_of(self.network)
        own: Encoder = encoder.forward
        with instead_of(encoder, lambda *_, segments, **__: own.rest_of(states, segments, self.cut)):
            yield

    @contextmanager
    def _layers(self, stop: int | None, start: int | None, end: nn.Module) -> Iterator[None]:
        """With the layers up to `stop` and `end` after them, or with `end` and the layers from `start` on."""
        owner, name = layers_place(self.network)
        layers = getattr(owner, name)
        vars(end)["attention_type"] = getattr(layers[0], "attention_type", None)  # ModernBERT asks each layer
        chosen = [*layers[:stop], end] if start is None else [end, *layers[start:]]
        setattr(owner, name, nn.ModuleList(chosen))
        try:
            yield
        finally:
            setattr(owner, name, layers)


class _Catch(nn.Module):
    """A layer that shows what it is given."""

    def __init__(self, catch: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.catch = catch

    def forward(self, hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """[1, T, width] -> the same."""
        self.catch(hidden[0])
        return hidden


class _Give(nn.Module):
    """A layer that gives what it has, whatever it is given."""

    def __init__(self, states: torch.Tensor) -> None:
        super().__init__()
        self.states = states

    def forward(self, hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """[1, T, width] -> the same shape, and the type that the family's own residuals have."""
        return self.states[None].to(hidden.dtype)


def above_for(classifier: nn.Module, settings: TrainConfig) -> AboveEncoder | None:
    """The part that is tuned, where the rest is frozen as a whole and rows are packed; else None."""
    if not isinstance(classifier, PackedClassifier) or settings.tune not in ("top_layers", "head"):
        return None
    if settings.tune == "head":
        return AboveEncoder(classifier)
    owner, name = layers_place(classifier.network)
    return AboveLayer(classifier, len(getattr(owner, name)) - settings.top_layers)
