"""Texts as sparse rows of hashed n-grams, made by numpy alone: what the cheap model of label_errors reads.

Words, pairs of neighbouring words, and pieces of 3 and 5 characters within a word, weighted by TF-IDF with sublinear
counts. All n-grams of a part are hashed at once by differences of one running polynomial hash (Karp and Rabin 1987).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

BITS = 20
"""2**BITS features: few of a text's n-grams share one with others."""
PIECES = (3, 5)
"""Characters in a piece of a word, blanks at its ends included."""
LONGEST = 1000
"""Characters read of a text, half of them from its end: enough to tell what it is about, and a bound on the cost."""
PART = 2**10
"""Texts hashed at once, which bounds the memory; a text's place and a feature fit 32 bits together."""
_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Sparse:
    """Rows of features, in compressed sparse rows.

    Attributes:
        starts: int64 [rows + 1], where each row begins in the other two.
        columns: int32 [entries], in order within a row; from 0 without gaps.
        values: float32 [entries]; each row has length 1, or no entry.
        width: how many columns there are.
    """

    starts: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    width: int

    def times(self, weights: np.ndarray, first: int, last: int) -> np.ndarray:
        """Rows from first to before last, times weights [width]: float64 [last - first]."""
        import numpy as np

        begin, end = self.starts[first], self.starts[last]
        sums = np.concatenate([[0.0], np.cumsum(self.values[begin:end] * weights[self.columns[begin:end]])])
        return np.diff(sums[self.starts[first : last + 1] - begin])

    def totals(self, part: slice, kept: np.ndarray) -> np.ndarray:
        """Sums of each column, float64 [width], over those of a part of the entries that are kept (bool [entries])."""
        import numpy as np

        return np.bincount(self.columns[part][kept], self.values[part][kept], minlength=self.width)


def tfidf(texts: Sequence[str]) -> Sparse:
    """The texts' n-grams: 1 + log of the count, times the inverse document frequency, each row of length 1.

    An n-gram of one text alone says nothing about another, and is left out.
    """
    import numpy as np

    parts = [_counts(texts[start : start + PART]) for start in range(0, len(texts), PART)]
    frequency = np.zeros(2**BITS, np.int64)
    for _, features, _ in parts:
        frequency += np.bincount(features, minlength=2**BITS)
    known = frequency > 1
    place = np.cumsum(known, dtype=np.int32) - 1
    idf = (1 + np.log((1 + len(texts)) / (1 + frequency[known]))).astype(np.float32)
    weighted = [_weighted(*parts.pop(0), known, place, idf) for _ in range(len(parts))]  # freed one by one
    lengths, columns, values = (np.concatenate(columns) for columns in zip(*weighted, strict=True))
    return Sparse(np.concatenate([[0], np.cumsum(lengths)]), columns, values, int(known.sum()))


def _weighted(
    lengths: np.ndarray, features: np.ndarray, counts: np.ndarray, known: np.ndarray, place: np.ndarray, idf: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries of the known features of each text, their columns and values."""
    import numpy as np

    kept = known[features]
    owners = np.repeat(np.arange(len(lengths)), lengths)[kept]
    columns = place[features[kept]]
    values = (1 + np.log(counts[kept])) * idf[columns]
    norms = np.sqrt(np.bincount(owners, values**2, minlength=len(lengths))).astype(np.float32)
    return np.bincount(owners, minlength=len(lengths)), columns, values / norms[owners]


def _counts(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many features each text has, which, and how often."""
    import numpy as np

    lines = [f" {' '.join(_TOKEN.findall(_ends(text).lower()))} " for text in texts]
    codes = np.frombuffer("".join(lines).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    owner = np.repeat(np.arange(len(texts), dtype=np.uint32), [len(line) for line in lines])
    keys = np.concatenate([(owner[at] << np.uint32(BITS)) | _bucket(hashed) for at, hashed in _hashes(codes, owner)])
    found, counts = np.unique(keys, return_counts=True)
    lengths = np.bincount(found >> np.uint32(BITS), minlength=len(texts))
    return lengths, (found & np.uint32(2**BITS - 1)).astype(np.int32), counts.astype(np.float32)


def _ends(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} {text[-LONGEST // 2 :]}"


def _hashes(codes: np.ndarray, owner: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each kind of n-gram: where it begins, and its hash."""
    import numpy as np

    base = np.uint64(0x9E3779B97F4A7C15)
    inverse = np.uint64(pow(int(base), -1, 2**64))
    size = len(codes)
    powers, shrinks = (
        np.cumprod(np.concatenate([[np.uint64(1)], np.full(size, by, np.uint64)])) for by in (base, inverse)
    )
    running = np.concatenate([[np.uint64(0)], np.cumsum(_mixed(codes.astype(np.uint64)) * powers[:size])])

    def between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
        return (running[end] - running[start]) * shrinks[start]

    blank = codes == ord(" ")
    start = np.flatnonzero(blank[:-1] & ~blank[1:]) + 1
    end = np.flatnonzero(~blank[:-1] & blank[1:]) + 1
    pair = np.flatnonzero(owner[start[:-1]] == owner[start[1:]])
    found = [(start, between(start, end)), (start[pair], between(start[pair], end[pair + 1]))]
    blanks = np.concatenate([[0], np.cumsum(blank)])
    for length in PIECES:
        at = np.arange(max(size - length + 1, 0))
        inside = blanks[at + length - 1] == blanks[at + 1]  # no blank but at its ends
        at = at[inside & (codes[at + length // 2] != ord(" "))]
        found.append((at, between(at, at + length) + np.uint64(length)))
    return found


def _mixed(values: np.ndarray) -> np.ndarray:
    """Bits spread over the whole word (the finalizer of SplitMix64; Steele, Lea and Flood 2014)."""
    import numpy as np

    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _bucket(hashed: np.ndarray) -> np.ndarray:
    import numpy as np

    return (_mixed(hashed) >> np.uint64(64 - BITS)).astype(np.uint32)
