"""Texts to token ids, by the checkpoint's own fast tokenizer (the Rust library alone, no transformers).

One Encoder serves prepare and serve, so that what was trained is what predicts. The library tokenizes; special tokens,
cuts and windows are laid around its ids here, for a thousand texts at once and no token in Python, because the library
knows two of the four ways to treat a long text.

A special token that is written out in a text, such as "[SEP]", is text: what a user types must not end a segment.
(transformers reads it as the token unless split_special_tokens is set.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.errors import InputError
from tuneline.tokenizer import Frame, frame_of, load, separator, specials

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Piece = tuple[Any, Any]
    """Where a piece of each row starts in the source, and how many tokens it has: both int64 [rows], or one for all."""

BATCH = 1000  # texts given to the library at once,
BATCH_CHARACTERS = 1_000_000  # or fewer: its encodings take some hundred bytes a token


@dataclass(frozen=True)
class Tokens:
    """Tokenized texts, in columns.

    Attributes:
        ids: int32, the token ids of all texts end to end, special tokens included; of a text, its windows in order.
        lengths: int32 [texts], tokens of each, over all its windows.
        total: int32 [texts], tokens that each would have uncut: above max_length, it was cut or windowed.
        pair_at: int32 [texts], index of the second text's first token, the same in each window; None without pairs.
        window_lengths: int32 [windows], tokens of each window; None unless long texts are windowed.
        window_counts: int32 [texts], windows of each text; None likewise.
    """

    ids: np.ndarray
    lengths: np.ndarray
    total: np.ndarray
    pair_at: np.ndarray | None = None
    window_lengths: np.ndarray | None = None
    window_counts: np.ndarray | None = None

    def columns(self) -> dict[str, pa.Array]:
        """As columns of a split file: input_ids, and pair_at and windows where there are some."""
        import pyarrow as pa

        columns = {"input_ids": _lists(self.lengths, self.ids)}
        if self.pair_at is not None:
            columns["pair_at"] = pa.array(self.pair_at)
        if self.window_lengths is not None and self.window_counts is not None:
            columns["windows"] = _lists(self.window_counts, self.window_lengths)
        return columns


def _lists(lengths: np.ndarray, values: np.ndarray) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    return pa.LargeListArray.from_arrays(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), values)


class Encoder:
    """Texts, or pairs of texts, to token ids of at most `max_length` a row.

    A long text keeps its head, its tail, or (head_tail) the first quarter of its room and the rest from its tail (Sun
    et al. 2019, How to Fine-Tune BERT for Text Classification); or (windows) all of it, in windows that overlap by a
    quarter, the last one filled back from the end. Of a pair the longer text is cut first, each as said; windows go
    over the first text and repeat the second, cut at its end. Not to be pickled: each process makes its own.

    Args:
        folder: with tokenizer.json.
        max_length: tokens, special ones included.
        long_texts: head, tail, head_tail or windows.

    Raises:
        InputError: no tokenizer that can be read.
    """

    def __init__(self, folder: Path, max_length: int, long_texts: str) -> None:
        self.folder, self.max_length, self.long_texts = folder, max_length, long_texts
        self.tokenizer, self._unknown = load(folder)
        self._specials = specials(self.tokenizer, self._unknown)
        self._separator = separator(folder, self.tokenizer)
        self._single = frame_of(self.tokenizer)
        self._double: Frame | None = None

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Tokens:
        """Token ids of each text, or of each text with the second beside it.

        Raises:
            InputError: max_length has no room, or the tokenizer no token to part two texts.
        """
        frame = self._single if pairs is None else self._pair_frame()
        if self.max_length - frame.size < (1 if pairs is None else 2):
            raise InputError(f"model.max_length: {self.max_length} given; special tokens alone take {frame.size}")
        parts = [
            self._batch(frame, texts[start:stop], None if pairs is None else pairs[start:stop])
            for start, stop in _batches(texts, pairs)
        ]
        return _joined(parts)

    def _pair_frame(self) -> Frame:
        """The tokenizer's own form of a pair; made of its form of one text, where it puts nothing between two."""
        if self._double is None:
            frame, single = frame_of(self.tokenizer, pair=True), self._single
            if not frame.between:
                between = single.after or ([self._separator] if self._separator >= 0 else [])
                frame = Frame(single.before, between, single.after)
            if not frame.between:
                raise InputError(
                    f"{self.folder}: the tokenizer has no token to part two texts; leave data.pair_column empty"
                )
            self._double = frame
        return self._double

    def _batch(self, frame: Frame, texts: Sequence[str], pairs: Sequence[str] | None) -> Tokens:
        import numpy as np

        first, lengths = self._content(texts)
        second, others = self._content(pairs) if pairs is not None else (first[:0], np.zeros_like(lengths))
        room, others_room = _share(lengths, others, self.max_length - frame.size)
        windowed = self.long_texts == "windows"
        counts = _window_counts(lengths, room) if windowed else np.ones_like(lengths)
        text = np.arange(len(texts)).repeat(counts)  # which each row is of
        starts, other_starts = lengths.cumsum() - lengths, len(first) + others.cumsum() - others
        one = _windows(lengths, room, counts, starts) if windowed else _cut(lengths, room, starts, self.long_texts)
        two = _cut(others[text], others_room[text], other_starts[text], self.long_texts)
        filler = (lengths + others + frame.size == 0).astype(np.int64)  # a text of no token needs one all the same
        around = [frame.before, frame.between, frame.after, [max(self._separator, 0)]]
        at = np.cumsum([len(first) + len(second), *map(len, around)])
        before, between, after, _ = zip(at, map(len, around), strict=False)
        pieces = [before, *one, between, *two, after, (at[3], filler[text])]
        source = np.concatenate([first, second, np.array([*chain.from_iterable(around)], np.int32)])
        ids, rows = _lay(source, pieces, len(text))
        return Tokens(
            ids,
            np.add.reduceat(rows, counts.cumsum() - counts, dtype=np.int32),
            (lengths + others + frame.size + filler).astype(np.int32),
            (at[2] - at[0] + np.minimum(lengths, room)).astype(np.int32) if pairs is not None else None,
            rows.astype(np.int32) if windowed else None,
            counts.astype(np.int32) if windowed else None,
        )

    def _content(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of the texts themselves, int32 end to end, and how many each has, int64."""
        import numpy as np

        rows = [encoding.ids for encoding in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        ids = np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum()))
        if len(self._specials):
            ids[np.isin(ids, self._specials)] = self._unknown
        return ids, lengths


def _batches(texts: Sequence[str], pairs: Sequence[str] | None) -> Iterator[tuple[int, int]]:
    """Stretches of texts, from start to before stop, none beyond what the library should hold at once."""
    start = characters = 0
    for number, text in enumerate(texts):
        size = len(text) + (len(pairs[number]) if pairs is not None else 0)
        if number > start and (number - start == BATCH or characters + size > BATCH_CHARACTERS):
            yield start, number
            start, characters = number, 0
        characters += size
    yield start, len(texts)


def _share(lengths: np.ndarray, others: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """The room of each of two texts when the longer one is cut first, as the library's longest_first has it."""
    import numpy as np

    short = np.minimum(np.minimum(lengths, others), room // 2)
    first_is_short = lengths <= others
    return np.where(first_is_short, short, room - short), np.where(first_is_short, room - short, short)


def _cut(lengths: np.ndarray, room: np.ndarray, starts: np.ndarray, long_texts: str) -> list[Piece]:
    """The piece of each text's head, and that of its tail."""
    import numpy as np

    kept = np.minimum(lengths, room)
    if long_texts == "tail":
        head = np.zeros_like(kept)
    elif long_texts == "head_tail":
        head = np.where(lengths > room, -(-room // 4), kept)
    else:
        head = kept
    return [(starts, head), (starts + lengths - (kept - head), kept - head)]


def _stride(room: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.maximum(room - room // 4, 1)


def _window_counts(lengths: np.ndarray, room: np.ndarray) -> np.ndarray:
    import numpy as np

    return 1 + np.maximum(-(-(lengths - room) // _stride(room)), 0)


def _windows(lengths: np.ndarray, room: np.ndarray, counts: np.ndarray, starts: np.ndarray) -> list[Piece]:
    """The piece of each window of each text."""
    import numpy as np

    number = np.arange(counts.sum()) - (counts.cumsum() - counts).repeat(counts)  # within the text
    last = np.maximum(lengths - room, 0)
    begin = np.minimum(number * _stride(room).repeat(counts), last.repeat(counts))
    return [(starts.repeat(counts) + begin, np.minimum(lengths, room).repeat(counts))]


def _lay(source: np.ndarray, pieces: list[Piece], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows' pieces out of the source, end to end, and the length of each row."""
    import numpy as np

    starts = np.stack([np.broadcast_to(start, rows) for start, _ in pieces], 1).ravel()
    lengths = np.stack([np.broadcast_to(length, rows) for _, length in pieces], 1)
    flat = lengths.ravel()
    ends = flat.cumsum()
    index = np.arange(flat.sum()) + (starts - ends + flat).repeat(flat)
    return source[index], lengths.sum(1)


def _joined(parts: list[Tokens]) -> Tokens:
    import numpy as np

    names = [name for name, value in vars(parts[0]).items() if value is not None]
    return Tokens(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
