"""Splits and samples by content hash: a row's place depends on its text and the seed, never on the order of the file.

Equal texts get equal hashes, so that duplicates stay on one side and adding rows never moves an old one.
"""

from __future__ import annotations

import hashlib


def place(text: str, seed: int, purpose: str) -> float:
    """A number in [0, 1) drawn from the text (SHA-256), the same on every machine."""
    digest = hashlib.sha256(f"{purpose}\0{seed}\0".encode() + text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def assign(texts: list[str], seed: int, validation_share: float, test_share: float) -> list[str]:
    """The split of each text: test below test_share, then validation, then train."""
    names = []
    for text in texts:
        at = place(text, seed, "split")
        names.append("test" if at < test_share else "validation" if at < test_share + validation_share else "train")
    return names


def keep_classes(names: list[str], texts: list[str], labels: list[str]) -> int:
    """Send held-out rows of classes that train has no row of to train, in place, all rows of a text together.

    Returns:
        How many rows moved.
    """
    known = {label for name, label in zip(names, labels, strict=True) if name == "train"}
    moving = {text for text, label in zip(texts, labels, strict=True) if label not in known}
    moved = [index for index, text in enumerate(texts) if text in moving and names[index] != "train"]
    for index in moved:
        names[index] = "train"
    return len(moved)


def sample(texts: list[str], keep: int, seed: int) -> list[int]:
    """Indices of a seeded sample of at most `keep` texts (0 keeps all), in their own order."""
    if keep == 0 or keep >= len(texts):
        return list(range(len(texts)))
    ranked = sorted(range(len(texts)), key=lambda index: (place(texts[index], seed, "sample"), index))
    return sorted(ranked[:keep])
