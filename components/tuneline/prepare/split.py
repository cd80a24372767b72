"""Splits and samples by content hash: a row's place depends on its text and the seed, never on the order of the file.

Equal texts get equal hashes, so that duplicates stay on one side; with a group column the group is hashed instead, so
that an author's rows stay together. Adding rows moves no old row, with one exception that cannot be had otherwise:
where training has no row of a class, the held-out rows of its texts are moved there (`keep_classes`), and a class that
gains or loses its only training rows may so move its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from tuneline.artifacts import SPLITS

if TYPE_CHECKING:
    import numpy as np

TRAIN, VALIDATION, TEST = range(len(SPLITS))
_CHANCE = 0.001
"""How rarely chance alone may call a split's balance off."""


def place(text: str, seed: int, purpose: str) -> float:
    """A number in [0, 1) drawn from the text (SHA-256), the same on every machine."""
    digest = hashlib.sha256(f"{purpose}\0{seed}\0".encode() + text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def places(texts: Iterable[str], seed: int, purpose: str) -> np.ndarray:
    """The places of many texts, uint64: 2**64 times what `place` gives."""
    import numpy as np

    start = hashlib.sha256(f"{purpose}\0{seed}\0".encode())
    digests = bytearray()
    for text in texts:
        digest = start.copy()
        digest.update(text.encode("utf-8", "surrogatepass"))
        digests += digest.digest()[:8]
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def assign(units: np.ndarray, validation_share: float, test_share: float) -> np.ndarray:
    """The split of each row, int8 into SPLITS: test below test_share, then validation, then train.

    Args:
        units: places of the texts, or of the groups, uint64.
        validation_share: share of the rows that validation gets, in expectation.
        test_share: share of the rows that the test split gets.
    """
    import numpy as np

    at = units.astype(np.float64) / 2**64
    return np.select([at < test_share, at < test_share + validation_share], [TEST, VALIDATION], TRAIN).astype(np.int8)


def cut_off(
    split: np.ndarray, times: np.ndarray, validation_from: datetime | None, test_from: datetime | None
) -> np.ndarray:
    """Send the rows from a date on to the split that begins there, in place.

    Args:
        split: as `assign` gave.
        times: int64, microseconds since 1970 in UTC.
        validation_from: first moment of validation; None leaves it to the hash.
        test_from: first moment of the test split.

    Returns:
        Which rows a date decided on, bool.
    """
    import numpy as np

    decided = np.zeros(len(split), bool)
    for moment, name in ((validation_from, VALIDATION), (test_from, TEST)):
        if moment:
            later = times >= microseconds(moment)
            split[later] = name
            decided |= later
    return decided


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970 in UTC."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def keep_classes(split: np.ndarray, units: np.ndarray, labels: np.ndarray, decided: np.ndarray) -> int:
    """Send held-out rows of classes that train has no row of to train, in place, all rows of a text together.

    Args:
        split: as `assign` gave.
        units: what was placed: rows of one place move together.
        labels: int32; negative where a row has none.
        decided: rows that stay where they are, because a date put them there.

    Returns:
        How many rows moved.
    """
    import numpy as np

    lost = np.setdiff1d(labels[labels >= 0], labels[split == TRAIN])
    if not len(lost):
        return 0
    moving = np.isin(units, units[np.isin(labels, lost)]) & (split != TRAIN) & ~decided
    split[moving] = TRAIN
    return int(moving.sum())


def sample(draws: np.ndarray, keep: int) -> np.ndarray:
    """Indices of a seeded sample of at most `keep` rows (0 keeps all), in their own order.

    Args:
        draws: places of the texts for this purpose, uint64.
        keep: how many.
    """
    import numpy as np

    if keep == 0 or keep >= len(draws):
        return np.arange(len(draws))
    return np.sort(np.argsort(draws, kind="stable")[:keep])


class Deviation(NamedTuple):
    """The class whose share in a made split differs most from its share in all rows.

    Attributes:
        split: the split.
        label: the class.
        share: its share of the split.
        whole: its share of all rows.
        chance: whether drawing at random would give that much (at 1 in 1,000 over all classes and splits).
    """

    split: str
    label: int
    share: float
    whole: float
    chance: bool


def deviation(split: np.ndarray, labels: np.ndarray) -> Deviation | None:
    """How far the made splits are from stratified: the largest deviation, in standard errors of a random draw.

    Args:
        split: int8 into SPLITS.
        labels: int32; rows without one (negative) are not counted.
    """
    from statistics import NormalDist

    import numpy as np

    kept = labels >= 0
    counts = np.zeros((len(SPLITS), int(labels.max(initial=0)) + 1))
    np.add.at(counts, (split[kept], labels[kept]), 1)
    rows, total = counts.sum(1, keepdims=True), counts.sum()
    whole = counts.sum(0) / max(total, 1)
    share = counts / np.maximum(rows, 1)
    # of the hypergeometric distribution: a split is drawn without putting back
    error = np.sqrt(whole * (1 - whole) / np.maximum(rows, 1) * (total - rows) / max(total - 1, 1))
    apart = np.where((rows > 0) & (error > 0), np.abs(share - whole) / np.where(error > 0, error, 1), 0)
    if not apart.any():
        return None
    at, label = np.unravel_index(int(apart.argmax()), apart.shape)
    bound = NormalDist().inv_cdf(1 - _CHANCE / 2 / apart.size)
    return Deviation(
        SPLITS[at], int(label), float(share[at, label]), float(whole[label]), bool(apart[at, label] < bound)
    )
