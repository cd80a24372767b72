"""Several texts in one row without padding, attention confined to each text: no operation is spent on filling.

The rows of a batch are laid end to end as one row of T tokens. Everything but attention works on tokens alone, so that
only attention must know where a text ends: a function in transformers' registry of attention implementations does
(attention.py), and serves every family that reads the registry. The classification head then gets one vector a text, as
that family pools. A family that cannot be packed gets rows padded to the longest instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from tuneline import attention, checkpoint
from tuneline.attention import full, moved
from tuneline.fused import Encoder, encoder_of, fuse
from tuneline.fused_gpu import GpuEncoder

Rows = Sequence[Sequence[int]]
"""Token ids of each text, special tokens included; arrays are the quickest."""

# Families that read the attention registry in every layer, and the token whose vector their classification head reads.
# "config" leaves it to classifier_pooling.
POOLING = {
    "albert": "first", "bert": "first", "camembert": "first", "distilbert": "first", "electra": "first",
    "gpt2": "last", "modernbert": "config", "roberta": "first", "xlm-roberta": "first",
}  # fmt: skip


class PackedRow(NamedTuple):
    """A batch as one row: input_ids and position_ids, both int64 [1, T], and the tokens of each text."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    lengths: tuple[int, ...]

    def token_types(self, pair_at: Sequence[int]) -> torch.Tensor:
        """0 for the first text of each row and 1 from the second on, int64 [1, T]."""
        parts = [torch.arange(length) >= at for length, at in zip(self.lengths, pair_at, strict=True)]
        return torch.cat(parts)[None].long()


def pack(rows: Rows, first_position: int = 0) -> PackedRow:
    """Lay texts end to end; positions start at `first_position` in each."""
    lengths = tuple(len(row) for row in rows)
    ids = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    starts = np.cumsum(lengths) - lengths
    positions = np.arange(first_position, first_position + len(ids)) - np.repeat(starts, lengths)
    return PackedRow(torch.from_numpy(ids)[None], torch.from_numpy(positions)[None], lengths)


def pad(rows: Rows, pad_id: int, pair_at: Sequence[int] | None = None) -> dict[str, torch.Tensor]:
    """Fill token rows up to the longest: input_ids, attention_mask and, where `pair_at` says where the second text of
    each row begins, token_type_ids; each [texts, longest] int64."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.as_tensor(row)
        mask[number, : len(row)] = 1
    inputs = {"input_ids": ids, "attention_mask": mask}
    if pair_at is not None:
        inputs["token_type_ids"] = mask * (torch.arange(longest) >= torch.tensor(pair_at)[:, None])
    return inputs


def tells_texts_apart(network: Any) -> bool:
    """Whether the family has token types, an embedding for each of two texts."""
    return (getattr(network.config, "type_vocab_size", None) or 0) > 1


class PaddedClassifier(nn.Module):
    """A sequence classifier of transformers that takes token rows: padded to the longest.

    Args:
        network: the classifier, on its device.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.typed = tells_texts_apart(network)

    def forward(self, rows: Rows, pair_at: Sequence[int] | None = None) -> torch.Tensor:
        """Logits [texts, labels], in fp32 or better; `pair_at` is where the second text of each row begins."""
        inputs = pad(rows, self.network.config.pad_token_id or 0, pair_at if self.typed else None)
        device = self.network.device
        return full(self.network(**{name: value.to(device) for name, value in inputs.items()}).logits)


class PackedClassifier(nn.Module):
    """The same, packed. Its logits and gradients are the padded classifier's, to rounding.

    Args:
        network: the classifier, on its device; its attention implementation is set to the packed one.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        pooling = POOLING[network.config.model_type]
        if pooling == "config":
            pooling = "mean" if network.config.classifier_pooling == "mean" else "first"
        self.pooling = pooling
        self.typed = tells_texts_apart(network)
        self.first_position = checkpoint.first_position(network.config.to_dict())
        network.set_attn_implementation(attention.NAME)
        self.fused = self.pooling == "first" and fuse(network, Encoder if self.device.type == "cpu" else GpuEncoder)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.device

    def compile_layers(self) -> bool:
        """Have torch compile the encoder's layers when they first train, where that is known to pay: on a GPU, by the
        encoder of fused_gpu.py. Gives whether it does."""
        encoder: Any = encoder_of(self.network).forward if self.fused else None
        if not isinstance(encoder, GpuEncoder):
            return False
        encoder.compile()
        return True

    def forward(self, rows: Rows, pair_at: Sequence[int] | None = None) -> torch.Tensor:
        """Logits [texts, labels], in fp32 or better; `pair_at` is where the second text of each row begins."""
        inputs = self._inputs(rows, pair_at)
        if self.fused:
            return full(self.network(**inputs).logits)
        if self.pooling == "last":  # the head of these families scores every token of a row
            return full(self.network.score(self.encode(rows, pair_at))[:, 0])
        base = self.network.base_model
        hook = base.register_forward_hook(lambda _base, _inputs, output: self._pooled(output, inputs["segments"]))
        try:
            return full(self.network(**inputs).logits)
        finally:
            hook.remove()

    def encode(self, rows: Rows, pair_at: Sequence[int] | None = None) -> torch.Tensor:
        """What the encoder gives of each text to the head: [texts, 1, width]."""
        inputs = self._inputs(rows, pair_at)
        without_cache = {"use_cache": False} if self.pooling == "last" else {}
        hidden = self.network.base_model(**inputs, **without_cache).last_hidden_state
        return hidden if self.fused else self._pool(hidden, inputs["segments"])

    def answer(self, pooled: torch.Tensor) -> torch.Tensor:
        """Logits [texts, labels], in fp32 or better, of what `encode` gave."""
        if self.pooling == "last":
            return full(self.network.score(pooled)[:, 0])
        base = self.network.base_model
        own = _own_pooler(base, pooled) if getattr(base, "pooler", None) is not None else None
        output = BaseModelOutputWithPooling(last_hidden_state=pooled, pooler_output=own)
        with instead_of(base, lambda *_, **__: output):
            return full(
                self.network(input_ids=torch.zeros(len(pooled), 1, dtype=torch.long, device=self.device)).logits
            )

    def _inputs(self, rows: Rows, pair_at: Sequence[int] | None) -> dict[str, Any]:
        row = pack(rows, self.first_position)
        inputs = {"input_ids": row.input_ids, "position_ids": row.position_ids}
        if self.typed and pair_at is not None:
            inputs["token_type_ids"] = row.token_types(pair_at)
        return {name: moved(value, self.device) for name, value in inputs.items()} | {"segments": row.lengths}

    def _pooled(self, output: Any, lengths: tuple[int, ...]) -> Any:
        """The encoder's output with one token a text in the place of all, which is what the family's own head reads."""
        output.last_hidden_state = self._pool(output.last_hidden_state, lengths)
        if "pooler_output" in output:
            output.pooler_output = _own_pooler(self.network.base_model, output.last_hidden_state)
        return output

    def _pool(self, hidden: torch.Tensor, lengths: tuple[int, ...]) -> torch.Tensor:
        """[1, T, width] -> [texts, 1, width]."""
        if self.pooling == "mean":
            return torch.stack([part.mean(0, keepdim=True) for part in hidden[0].split(lengths)])
        ends = attention.offsets(lengths, hidden.device)
        return hidden[0, ends[1:] - 1 if self.pooling == "last" else ends[:-1]][:, None]


@contextmanager
def instead_of(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """While this lasts, the module does what `forward` does."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


def _own_pooler(base: Any, pooled: torch.Tensor) -> torch.Tensor:
    if isinstance(base.pooler, nn.Linear):  # ALBERT keeps its activation apart
        return base.pooler_activation(base.pooler(pooled[:, 0]))
    return base.pooler(pooled)


def classifier_for(network: Any) -> PackedClassifier | PaddedClassifier:
    """The network as something that takes token rows: packed where its family and device allow it, else padded."""
    return PackedClassifier(network) if can_pack(network) else PaddedClassifier(network)


def can_pack(network: Any) -> bool:
    """Whether packed rows are for this network: its family is known to take them."""
    return network.config.model_type in POOLING
