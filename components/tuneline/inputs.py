"""Tokenized texts as what a model reads: a row a text, or a row for each of its windows. Train and serve share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from tuneline.tokens import Tokens

T = TypeVar("T")


@dataclass(frozen=True)
class Inputs:
    """What a model reads: a row a text, or a row for each of a text's windows.

    Attributes:
        rows: token ids.
        pair_at: index of the first token of each row's second text; None where rows hold one text.
        windows: rows of each text; None where a row is a text.
    """

    rows: list[list[int]]
    pair_at: list[int] | None = None
    windows: list[int] | None = None

    def repeat(self, values: Sequence[T]) -> list[T]:
        """A value of each text, for each row."""
        if self.windows is None:
            return list(values)
        return [value for value, count in zip(values, self.windows, strict=True) for _ in range(count)]

    def parts(self, counts: Sequence[int]) -> list[Inputs]:
        """Consecutive stretches of so many texts each, which together are all."""
        found, text, row = [], 0, 0
        for count in counts:
            windows = None if self.windows is None else self.windows[text : text + count]
            stop = row + (count if windows is None else sum(windows))
            found.append(Inputs(self.rows[row:stop], self.pair_at and self.pair_at[row:stop], windows))
            text, row = text + count, stop
        return found

    def mean(self, answers: np.ndarray) -> np.ndarray:
        """Answers to the rows [rows, n] as answers to the texts [texts, n]: the mean over a text's windows."""
        import numpy as np

        if not self.windows:
            return answers
        counts = np.array(self.windows)
        return np.add.reduceat(answers, counts.cumsum() - counts) / counts[:, None].astype(answers.dtype)


def of_table(table: pa.Table) -> Inputs:
    """The rows of a split (artifacts.read_split)."""
    names = ("pair_at", "windows")
    pair_at, windows = (table.column(name).to_pylist() if name in table.column_names else None for name in names)
    return _inputs(table.column("input_ids").to_pylist(), pair_at, windows)


def of_tokens(tokens: Tokens) -> Inputs:
    """The rows of texts that were just tokenized."""
    pair_at = None if tokens.pair_at is None else tokens.pair_at.tolist()
    windows = None
    if tokens.window_lengths is not None and tokens.window_counts is not None:
        windows = _parts(tokens.window_lengths, tokens.window_counts)
    return _inputs(_parts(tokens.ids, tokens.lengths), pair_at, windows)


def _inputs(ids: list[list[int]], pair_at: list[int] | None, windows: list[list[int]] | None) -> Inputs:
    if windows is None:
        return Inputs(ids, pair_at)
    rows = []
    for row, lengths in zip(ids, windows, strict=True):
        ends = accumulate(lengths)
        rows += [row[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    texts = Inputs(rows, None, [len(lengths) for lengths in windows])
    return replace(texts, pair_at=pair_at and texts.repeat(pair_at))


def _parts(values: np.ndarray, lengths: np.ndarray) -> list[list[int]]:
    flat = values.tolist()
    return [flat[end - length : end] for end, length in zip(lengths.cumsum().tolist(), lengths.tolist(), strict=True)]
