"""What the audit must know of each text, in arrays: hashes, length, what is wrong inside, script. In worker processes.

Millions of short texts pass here, so that what holds for most of them (ASCII, no tag, no digit) is decided for a whole
chunk at once in NumPy, and only the texts that a byte makes suspicious are read by the patterns of tuneline.clean.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING

from tuneline import clean, scripts

if TYPE_CHECKING:
    import numpy as np

EMPTY, CONTROL, MOJIBAKE, MARKUP, EMAIL, PHONE, CARD = (1 << bit for bit in range(7))
"""Bits of a text's flags."""

_DIGIT, _TAG, _SEMICOLON, _AT, _UNPRINTED, _BEYOND_ASCII, _VISIBLE = (1 << bit for bit in range(7))
_PERSONAL_DIGITS = 9
"""Fewer digits make no phone number that PHONE finds, and no card."""


def examine(
    texts: list[str], pairs: list[str] | None, near: float, raw_flags: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Facts of a chunk of texts, an entry a row; the same whatever the chunk's borders.

    Args:
        texts: the texts as they will be learned from.
        pairs: the second text of each, or None.
        near: similarity above which texts are nearly the same (data.near_duplicates); 0 leaves `bands` out.
        raw_flags: flags of the texts as they came, where fixes changed them since.

    Returns:
        exact: uint64, a hash of text and pair.
        folded: uint64, the same of their folded forms (see fold).
        chars: int32, characters of text and pair.
        flags: uint32, bits EMPTY to CARD.
        script: uint8, an index into scripts.NAMES.
        bands: uint32 [rows, bands], for the search of near duplicates (see duplicates.bands).
    """
    import numpy as np

    whole = texts if pairs is None else [f"{text}\n{pair}" for text, pair in zip(texts, pairs, strict=True)]
    encoded = [text.encode("utf-8", "surrogatepass") for text in whole]
    folded = [fold(text) for text in whole]
    found = flags(texts, pairs)
    facts = {
        "exact": _hashes(_parted(texts, pairs) if pairs else encoded),
        "folded": _hashes([text.encode("utf-8", "surrogatepass") for text in folded]),
        "chars": np.fromiter(map(len, whole), np.int32, len(whole)) - (pairs is not None),
        "flags": found if raw_flags is None else (found & EMPTY) | (raw_flags & ~np.uint32(EMPTY)),
        "script": scripts.of(whole),
    }
    if near:
        from tuneline.prepare.duplicates import bands

        facts["bands"] = bands(folded, near)
    return facts


def fold(text: str) -> str:
    """The text without differences that readers do not see: Unicode's compatibility forms (NFKC), case, blanks."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).casefold()
        return " ".join(unicodedata.normalize("NFKC", text).split())
    return " ".join(text.lower().split())


def _parted(texts: list[str], pairs: list[str]) -> list[bytes]:
    """Text and pair with the first one's length before them, so that no two pairs run on alike."""
    rows = zip(texts, pairs, strict=True)
    return [f"{len(text)}\0{text}{pair}".encode("utf-8", "surrogatepass") for text, pair in rows]


def _hashes(encoded: list[bytes]) -> np.ndarray:
    """64 bits of BLAKE2b: among ten million texts, two distinct ones are alike with a chance of 3 in a million."""
    import numpy as np

    digest = hashlib.blake2b
    joined = b"".join([digest(text, digest_size=8).digest() for text in encoded])
    return np.frombuffer(joined, np.dtype("<u8")).astype(np.uint64)


def flags(texts: list[str], pairs: list[str] | None) -> np.ndarray:
    """What is wrong inside each text or its pair: uint32 bits EMPTY to CARD (EMPTY where either text is)."""
    found = _flags(texts)
    return found if pairs is None else found | _flags(pairs)


def _flags(texts: list[str]) -> np.ndarray:
    import numpy as np

    seen, digits = _seen([text.encode("utf-8", "surrogatepass") for text in texts])
    found = np.zeros(len(texts), np.uint32)
    found[(seen & (_VISIBLE | _DIGIT | _TAG | _SEMICOLON | _AT | _BEYOND_ASCII)) == 0] = EMPTY
    beyond = seen & _BEYOND_ASCII != 0
    found[[at for at in np.flatnonzero(beyond) if not clean.CONTROL.sub("", texts[at]).strip()]] = EMPTY
    many = digits >= _PERSONAL_DIGITS
    suspects: list[tuple[int, np.ndarray, Callable[[str], object]]] = [
        (CONTROL, beyond | (seen & _UNPRINTED != 0), clean.CONTROL.search),
        (MOJIBAKE, beyond, clean.is_mojibake),
        (MARKUP, seen & (_TAG | _SEMICOLON) != 0, clean.has_markup),
        (EMAIL, seen & _AT != 0, clean.EMAIL.search),
        (PHONE, many, clean.PHONE.search),
        (CARD, many, clean.has_card),
    ]
    for bit, where, holds in suspects:
        for at in np.flatnonzero(where).tolist():
            if holds(texts[at]):
                found[at] |= bit
    return found


def _seen(encoded: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Which kinds of bytes each text holds (uint8 bits _DIGIT to _VISIBLE), and how many digits."""
    import numpy as np

    kinds = np.full(256, _VISIBLE, np.uint8)
    kinds[0x80:] = _BEYOND_ASCII
    kinds[:0x20] = kinds[0x7F] = _UNPRINTED
    kinds[[0x09, 0x0A, 0x0D, 0x20]] = 0
    kinds[ord("0") : ord("9") + 1] = _DIGIT
    kinds[[ord("<"), ord(";"), ord("@")]] = _TAG, _SEMICOLON, _AT
    of_bytes = kinds[np.frombuffer(b"".join(encoded), np.uint8)]
    seen, digits = np.zeros(len(encoded), np.uint8), np.zeros(len(encoded), np.int64)
    sizes = np.fromiter(map(len, encoded), np.int64, len(encoded))
    starts = (sizes.cumsum() - sizes)[sizes > 0]  # reduceat takes no empty stretch
    if len(starts):
        seen[sizes > 0] = np.bitwise_or.reduceat(of_bytes, starts)
        digits[sizes > 0] = np.add.reduceat((of_bytes == _DIGIT).astype(np.int64), starts)
    return seen, digits
