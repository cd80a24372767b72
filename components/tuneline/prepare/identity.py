"""What a split is, in two hashes: over its rows in their order, and over its rows in any order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def frames(columns: Sequence[Sequence[str]]) -> tuple[bytes, bytes]:
    """The bytes that rows are hashed by, and the hash of each row.

    Args:
        columns: equally long: texts, with pairs the second texts, labels.

    Returns:
        Every value preceded by its length, so that no two data sets collide; and 32 bytes (SHA-256) for each row.
    """
    rows = bytearray()
    digests = bytearray()
    for row in zip(*columns, strict=True):
        frame = b"".join(_framed(value) for value in row)
        rows += frame
        digests += hashlib.sha256(frame).digest()
    return bytes(rows), bytes(digests)


def _framed(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return len(data).to_bytes(8, "big") + data


class Identity:
    """The hashes of a split, added up chunk by chunk; 32 bytes a row are kept for the one without order."""

    def __init__(self) -> None:
        self._ordered = hashlib.sha256()
        self._digests = bytearray()

    def add(self, rows: bytes, digests: bytes) -> None:
        """Take in what `frames` gave of the next rows."""
        self._ordered.update(rows)
        self._digests += digests

    def ordered(self) -> str:
        """SHA-256 over every value in order, as hex."""
        return self._ordered.hexdigest()

    def unordered(self) -> str:
        """SHA-256 over the rows' hashes, sorted: a sum of them would be cheaper, and could be forged."""
        import numpy as np

        return hashlib.sha256(np.sort(np.frombuffer(self._digests, "S32")).tobytes()).hexdigest()


def of_all(hashes: dict[str, str]) -> dict[str, str]:
    """The splits' hashes, with `all` over them."""
    return hashes | {"all": hashlib.sha256("".join(hashes.values()).encode()).hexdigest()}
