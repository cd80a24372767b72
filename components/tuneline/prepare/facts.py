"""What the audit must know of each text, in arrays: hashes, length, what is wrong inside, script. In worker processes.

Millions of short texts pass here, so that what holds for most of them (ASCII, no tag, no digit) is decided for a whole
chunk at once in NumPy, and only the texts that a byte makes suspicious are read by the patterns of tuneline.clean.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tuneline import clean

if TYPE_CHECKING:
    import numpy as np

EMPTY, CONTROL, MOJIBAKE, MARKUP, EMAIL, PHONE, CARD = (1 << bit for bit in range(7))
"""Bits of a text's flags."""

SCRIPTS = (
    "none", "Latin", "Greek", "Cyrillic", "Armenian", "Hebrew", "Arabic", "Devanagari", "Bengali", "Gurmukhi",
    "Gujarati", "Tamil", "Telugu", "Kannada", "Malayalam", "Sinhala", "Thai", "Georgian", "Ethiopic", "Khmer",
    "Hangul", "Kana", "Han", "other",
)  # fmt: skip
"""Names of the scripts; a text's script is an index. `none` has no letters."""

# Unicode blocks (first code point, script), each up to the next; what lies between two scripts holds no letters here.
_BLOCKS: tuple[tuple[int, str], ...] = (
    (0x00, "none"), (0x41, "Latin"), (0x5B, "none"), (0x61, "Latin"), (0x7B, "none"), (0xC0, "Latin"), (0x2B0, "none"),
    (0x370, "Greek"), (0x400, "Cyrillic"), (0x530, "Armenian"), (0x590, "Hebrew"), (0x600, "Arabic"), (0x700, "other"),
    (0x750, "Arabic"), (0x780, "other"), (0x8A0, "Arabic"), (0x900, "Devanagari"), (0x980, "Bengali"),
    (0xA00, "Gurmukhi"), (0xA80, "Gujarati"), (0xB00, "other"), (0xB80, "Tamil"), (0xC00, "Telugu"),
    (0xC80, "Kannada"), (0xD00, "Malayalam"), (0xD80, "Sinhala"), (0xE00, "Thai"), (0xE80, "other"),
    (0x10A0, "Georgian"), (0x1100, "Hangul"), (0x1200, "Ethiopic"), (0x13A0, "other"), (0x1780, "Khmer"),
    (0x1800, "other"), (0x1C80, "Cyrillic"), (0x1C90, "Georgian"), (0x1CC0, "other"), (0x1D00, "Latin"),
    (0x1F00, "Greek"), (0x2000, "none"), (0x2C60, "Latin"), (0x2C80, "other"), (0x2DE0, "Cyrillic"), (0x2E00, "none"),
    (0x2E80, "Han"), (0x3000, "none"), (0x3041, "Kana"), (0x3100, "Han"), (0x3130, "Hangul"), (0x3190, "Han"),
    (0x31F0, "Kana"), (0x3200, "none"), (0x3400, "Han"), (0xA000, "other"), (0xA640, "Cyrillic"), (0xA6A0, "other"),
    (0xA720, "Latin"), (0xA800, "other"), (0xA960, "Hangul"), (0xA980, "other"), (0xAB30, "Latin"), (0xAB70, "other"),
    (0xAC00, "Hangul"), (0xD800, "none"), (0xF900, "Han"), (0xFB00, "Latin"), (0xFB13, "Armenian"),
    (0xFB1D, "Hebrew"), (0xFB50, "Arabic"), (0xFE00, "none"), (0xFE70, "Arabic"), (0xFEFF, "none"), (0xFF21, "Latin"),
    (0xFF3B, "none"), (0xFF41, "Latin"), (0xFF5B, "none"), (0xFF66, "Kana"), (0xFFA0, "Hangul"), (0xFFE0, "none"),
    (0x10000, "other"), (0x1D400, "Latin"), (0x1D6A8, "Greek"), (0x1D7CE, "none"), (0x1E800, "other"),
    (0x1EE00, "Arabic"), (0x1F000, "none"), (0x20000, "Han"), (0xE0000, "none"),
)  # fmt: skip

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
        script: uint8, an index into SCRIPTS.
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
        "script": _scripts(whole, encoded),
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


def _scripts(texts: Sequence[str], encoded: list[bytes]) -> np.ndarray:
    """The script of most letters of each text; Kana wherever it stands beside Han, which Japanese mixes."""
    import numpy as np

    found = np.zeros(len(texts), np.uint8)
    latin, kana, han = (SCRIPTS.index(name) for name in ("Latin", "Kana", "Han"))
    plain = np.fromiter(map(str.isascii, texts), bool, len(texts))
    letters = np.fromiter((plain[at] and _has_letter(text) for at, text in enumerate(encoded)), bool, len(texts))
    found[letters] = latin
    rest = np.flatnonzero(~plain)
    if len(rest):
        counts = _letters([texts[at] for at in rest.tolist()])
        counts[:, kana] += np.where(counts[:, kana] > 0, counts[:, han], 0)
        found[rest] = counts.argmax(1)
    return found


def _has_letter(text: bytes) -> bool:
    return text.upper() != text.lower()


def _letters(texts: list[str]) -> np.ndarray:
    """Letters of each script in each text, int64 [texts, scripts]; a text without any counts as one of `none`."""
    import numpy as np

    starts = np.array([start for start, _ in _BLOCKS])
    scripts = np.array([SCRIPTS.index(name) for _, name in _BLOCKS])
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))
    row = np.repeat(np.arange(len(texts)), np.fromiter(map(len, texts), np.int64, len(texts)))
    script = scripts[np.searchsorted(starts, points, "right") - 1]
    counts = np.bincount(row * len(SCRIPTS) + script, minlength=len(texts) * len(SCRIPTS))
    counts = counts.reshape(len(texts), len(SCRIPTS))
    counts[:, 0] = counts[:, 1:].sum(1) == 0
    return counts
