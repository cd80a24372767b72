"""The writing system of a text, by Unicode's blocks: prepare counts the rows by it, evaluate parts them by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

NAMES = (
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

CHARACTERS = 1_000_000
"""Characters that are looked at at once, which take some twenty bytes each."""


def of(texts: Sequence[str]) -> np.ndarray:
    """The script of most letters of each text; Kana wherever it stands beside Han, which Japanese mixes.

    Returns:
        uint8 [texts], indices into NAMES.
    """
    import numpy as np

    found = np.zeros(len(texts), np.uint8)
    plain = np.fromiter(map(str.isascii, texts), bool, len(texts))
    letters = np.fromiter((ascii_ and _has_letter(text) for ascii_, text in zip(plain, texts, strict=True)), bool)
    found[letters] = NAMES.index("Latin")
    rest = np.flatnonzero(~plain)
    if not len(rest):
        return found
    sizes = np.fromiter((len(texts[at]) for at in rest.tolist()), np.int64, len(rest))
    for block in np.split(rest, np.flatnonzero(np.diff(sizes.cumsum() // CHARACTERS)) + 1):
        found[block] = _most([texts[int(at)] for at in block])
    return found


def _has_letter(text: str) -> bool:
    return text.upper() != text.lower()


def _most(texts: list[str]) -> np.ndarray:
    import numpy as np

    counts, kana, han = _letters(texts), NAMES.index("Kana"), NAMES.index("Han")
    counts[:, kana] += np.where(counts[:, kana] > 0, counts[:, han], 0)
    return counts.argmax(1)


def _letters(texts: list[str]) -> np.ndarray:
    """Letters of each script in each text, int64 [texts, scripts]; a text without any counts as one of `none`."""
    import numpy as np

    starts = np.array([start for start, _ in _BLOCKS])
    scripts = np.array([NAMES.index(name) for _, name in _BLOCKS])
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))
    row = np.repeat(np.arange(len(texts)), np.fromiter(map(len, texts), np.int64, len(texts)))
    script = scripts[np.searchsorted(starts, points, "right") - 1]
    counts = np.bincount(row * len(NAMES) + script, minlength=len(texts) * len(NAMES))
    counts = counts.reshape(len(texts), len(NAMES))
    counts[:, 0] = counts[:, 1:].sum(1) == 0
    return counts
