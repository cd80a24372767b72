"""Texts that are the same, or nearly: MinHash signatures in bands (Broder 1997; Leskovec et al., Mining of Massive Data
Sets, ch. 3), computed for a chunk of texts at once, and candidates checked by their true Jaccard similarity.

A text is the set of its word triples after folding; one of fewer words is a set of one. Own code and no library:
datasketch and rensa hash text by text in Python, while here a chunk costs a few passes over its bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

WORDS = 3
HASHES, MOST_BANDS, FOUND = 128, 32, 0.98
"""Hash functions and bands to choose among, so that a pair at the threshold is a candidate with this probability."""
SKETCH = HASHES // 32
"""Words of 32 bits, a bit of each hash (Li and König 2010), by which most candidates that are not alike fall away."""
BLOCK = 20_000
"""Pairs checked at once."""


@cache
def plan(near: float) -> tuple[int, int]:
    """How many bands, of how many hashes each: the longest bands, hence fewest candidates, that still find enough."""
    for rows in range(16, 0, -1):
        missed = 1 - near**rows
        bands = math.ceil(math.log(1 - FOUND) / math.log(missed)) if missed > 0 else 1
        if bands <= min(HASHES // rows, MOST_BANDS):
            return bands, rows
    return MOST_BANDS, 1


def shingles(folded: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """A hash (uint64) of each word triple of each folded text, one text after the other, and how many each text has.

    The hash of a stretch of bytes is a difference of prefix sums, so that all triples are hashed without a loop.
    """
    import numpy as np

    joined = np.frombuffer(("\n".join(folded) + "\n").encode("utf-8", "surrogatepass"), np.uint8)
    ends = np.flatnonzero((joined == 0x20) | (joined == 0x0A))
    starts = np.concatenate(([0], ends[:-1] + 1))
    last = np.flatnonzero(joined[ends] == 0x0A)  # the last word of each text
    words = np.diff(last, prepend=-1)
    counts = np.maximum(words - (WORDS - 1), 1)
    first = np.repeat(last - words + 1, counts) + _within(counts)
    end = ends[np.minimum(first + WORDS - 1, np.repeat(last, counts))]
    start = starts[first]
    table, power, inverse = _powers(1 << (len(joined) - 1).bit_length())
    prefix = np.concatenate((np.zeros(1, np.uint64), np.cumsum(table[joined] * power[: len(joined)])))
    return _mixed((prefix[end] - prefix[start]) * inverse[start]), counts


def _within(counts: np.ndarray) -> np.ndarray:
    """0, 1, ... in each of consecutive stretches of these lengths."""
    import numpy as np

    return np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)


@cache
def _powers(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A random number for each byte; powers of an odd number, and of its inverse, modulo 2^64."""
    import numpy as np

    base = 0x9E3779B97F4A7C15
    table = _random(256, 1)
    power, inverse = (np.full(max(length, 1), number, np.uint64) for number in (base, pow(base, -1, 1 << 64)))
    power[0] = inverse[0] = 1
    return table, np.cumprod(power), np.cumprod(inverse)


@cache
def _random(count: int, seed: int) -> np.ndarray:
    import numpy as np

    return _mixed(np.arange(seed << 32, (seed << 32) + count, dtype=np.uint64))


def _mixed(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer: every bit of the result depends on every bit of the value."""
    import numpy as np

    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def bands(folded: list[str], near: float) -> np.ndarray:
    """MinHash signatures of folded texts.

    Returns:
        uint32 [texts, bands + SKETCH]: a hash of each band of the signature, of which near texts share at least one,
        and a bit of each of its hashes, in which near texts mostly agree.
    """
    import numpy as np

    count, rows = plan(near)
    found = np.zeros((len(folded), count + SKETCH), np.uint32)
    if not folded:
        return found
    hashes, sizes = shingles(folded)
    starts = sizes.cumsum() - sizes
    multipliers, work = _random(count * rows, 2) | np.uint64(1), np.empty_like(hashes)
    together = np.zeros(len(folded), np.uint64)
    for at, multiplier in enumerate(multipliers):
        np.multiply(hashes, multiplier, out=work)
        least = np.minimum.reduceat(work, starts)
        bit = (least >> np.uint64(31)).astype(np.uint32) & np.uint32(1)
        found[:, count + at // 32] |= bit << np.uint32(at % 32)
        together = _mixed(together ^ least)
        if (at + 1) % rows == 0:
            found[:, at // rows] = together >> np.uint64(32)
            together = np.zeros(len(folded), np.uint64)
    return found


def groups(
    folded: np.ndarray, band: Callable[[int], np.ndarray], texts: Callable[[np.ndarray], list[str]], near: float
) -> np.ndarray:
    """The group of each row: rows whose folded texts are equal or, with near > 0, linked by similar ones.

    Args:
        folded: uint64 [rows], hashes of the folded texts.
        band: a column (uint32) of what `bands` gave for all rows.
        texts: the folded texts of these rows.
        near: the least Jaccard similarity of word triples; 0 groups equal folded texts only.

    Returns:
        int64 [rows], the same number for the rows of a group.
    """
    import numpy as np

    _, rows, group = np.unique(folded, return_index=True, return_inverse=True)
    if near == 0:
        return group
    count, _ = plan(near)
    sketch = [band(count + at)[rows] for at in range(SKETCH)]
    seen = np.empty(0, np.uint64)
    parents = np.arange(len(rows))
    for number in range(count):
        pairs = _plausible(_candidates(band(number)[rows]), sketch, near)
        pairs = np.setdiff1d(pairs, seen, assume_unique=True)
        seen = np.concatenate((seen, pairs))
        for at in range(0, len(pairs), BLOCK):
            left, right = np.divmod(pairs[at : at + BLOCK], np.uint64(len(rows)))
            left, right = left.astype(np.int64), right.astype(np.int64)
            alike = _similarity(rows[left], rows[right], texts) >= near
            _join(parents, left[alike].tolist(), right[alike].tolist())
    return _roots(parents)[group]


def _candidates(values: np.ndarray) -> np.ndarray:
    """Pairs of positions of equal values, as left * n + right: each with the one before it, and with the first."""
    import numpy as np

    order = np.argsort(values, kind="stable")
    new = np.concatenate(([True], values[order][1:] != values[order][:-1]))
    firsts = order[np.flatnonzero(new)][np.cumsum(new) - 1]
    again = np.flatnonzero(~new)
    left = np.concatenate((order[again - 1], firsts[again])).astype(np.uint64)
    right = np.concatenate((order[again], order[again])).astype(np.uint64)
    return np.unique(np.minimum(left, right) * np.uint64(len(values)) + np.maximum(left, right))


def _plausible(pairs: np.ndarray, sketch: list[np.ndarray], near: float) -> np.ndarray:
    """The pairs whose sketches differ in no more bits than those of texts at the threshold do, 994 times in 1,000."""
    import numpy as np

    bits = math.prod(plan(near))
    differ = (1 - near) / 2
    most = bits * differ + 2.5 * math.sqrt(bits * differ * (1 - differ))
    left, right = (at.astype(np.int64) for at in np.divmod(pairs, np.uint64(len(sketch[0]))))
    apart = np.zeros(len(pairs), np.int64)
    for word in sketch:
        apart += np.bitwise_count(word[left] ^ word[right])
    return pairs[apart <= most]


def _similarity(left: np.ndarray, right: np.ndarray, texts: Callable[[np.ndarray], list[str]]) -> np.ndarray:
    """Jaccard similarity of the triples of each pair of rows."""
    import numpy as np

    rows, places = np.unique(np.concatenate((left, right)), return_inverse=True)
    hashes, counts = shingles(texts(rows))
    owner = np.repeat(np.arange(len(rows)), counts)
    order = np.lexsort((hashes, owner))
    hashes, owner = hashes[order], owner[order]
    once = np.concatenate(([True], (hashes[1:] != hashes[:-1]) | (owner[1:] != owner[:-1])))
    hashes, sizes = hashes[once], np.bincount(owner[once], minlength=len(rows))
    starts, pair = sizes.cumsum() - sizes, np.tile(np.arange(len(left)), 2)
    taken = sizes[places]
    of_pairs = hashes[np.repeat(starts[places], taken) + _within(taken)]
    pair = np.repeat(pair, taken)
    order = np.lexsort((of_pairs, pair))
    of_pairs, pair = of_pairs[order], pair[order]
    both = (of_pairs[1:] == of_pairs[:-1]) & (pair[1:] == pair[:-1])
    shared = np.bincount(pair[1:][both], minlength=len(left))
    return shared / (taken[: len(left)] + taken[len(left) :] - shared)


def _join(parents: np.ndarray, left: list[int], right: list[int]) -> None:
    """Unite the groups of each pair, in place; the smaller root leads, so that their order changes nothing."""
    for one, other in zip(left, right, strict=True):
        first, second = _root(parents, one), _root(parents, other)
        parents[max(first, second)] = min(first, second)


def _root(parents: np.ndarray, at: int) -> int:
    while parents[at] != at:
        parents[at] = parents[parents[at]]
        at = int(parents[at])
    return at


def _roots(parents: np.ndarray) -> np.ndarray:
    import numpy as np

    while not np.array_equal(parents, parents[parents]):
        parents = parents[parents]
    return parents
