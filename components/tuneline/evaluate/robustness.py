"""Small changes of a text that should not change its answer, and how often they do."""

from __future__ import annotations

import hashlib
import random
import string
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tuneline.statistics import share

if TYPE_CHECKING:
    import numpy as np

TYPOS = 0.05
"""Share of a text's letters that a typo befalls, one at least."""
PUNCTUATION = str.maketrans("", "", string.punctuation)


def upper(text: str, dice: random.Random) -> str:
    """All in capitals."""
    del dice
    return text.upper()


def lower(text: str, dice: random.Random) -> str:
    """No capitals."""
    del dice
    return text.lower()


def typos(text: str, dice: random.Random) -> str:
    """One letter in twenty swapped with the next, left out or doubled."""
    letters = [index for index, character in enumerate(text) if character.isalpha()]
    if not letters:
        return text
    characters = list(text)
    for index in dice.sample(letters, max(1, int(TYPOS * len(letters)))):
        kind = dice.choice(("swap", "drop", "double"))
        if kind == "drop":
            characters[index] = ""
        elif kind == "double" or index + 1 == len(characters):
            characters[index] *= 2
        else:
            characters[index], characters[index + 1] = characters[index + 1], characters[index]
    return "".join(characters)


def whitespace(text: str, dice: random.Random) -> str:
    """Spaces doubled or turned into line breaks, and some around the text."""
    words = text.split(" ")
    gaps = [dice.choice((" ", "  ", "\n", "\t")) for _ in words[1:]]
    return "  " + "".join(f"{word}{gap}" for word, gap in zip(words, [*gaps, ""], strict=True)) + "\n"


def punctuation(text: str, dice: random.Random) -> str:
    """Without punctuation; a text of nothing else stays as it is."""
    del dice
    bare = text.translate(PUNCTUATION)
    return bare if bare.strip() else text


PROBES: dict[str, Callable[[str, random.Random], str]] = {
    probe.__name__: probe for probe in (lower, upper, typos, whitespace, punctuation)
}


def sample(keys: np.ndarray, most: int) -> np.ndarray:
    """Indices of at most that many rows, those with the smallest keys whatever the order, in the order of the rows."""
    import numpy as np

    return np.sort(np.argsort(keys, kind="stable")[:most])


def perturb(name: str, texts: Sequence[str], seed: int = 0) -> list[str]:
    """The texts changed by a probe; a text is always changed alike."""
    return [PROBES[name](text, _dice(name, text, seed)) for text in texts]


def _dice(name: str, text: str, seed: int) -> random.Random:
    digest = hashlib.sha256(f"{name} {seed} {text}".encode("utf-8", "surrogatepass")).digest()
    return random.Random(int.from_bytes(digest[:8]))


def probe(
    texts: Sequence[str], answers: np.ndarray, predict: Callable[[list[str], list[int]], np.ndarray], seed: int = 0
) -> list[dict[str, Any]]:
    """name, n (texts that the probe changed), flipped (their share with another answer), low, high of each probe.

    Args:
        texts: as given.
        answers: [texts] what was answered to them.
        predict: answers to changed texts, which stand at these places of `texts`.
        seed: of the typos and of the spaces.
    """
    found = []
    for name in PROBES:
        changed = [(place, new) for place, new in enumerate(perturb(name, texts, seed)) if new != texts[place]]
        places = [place for place, _ in changed]
        again = predict([new for _, new in changed], places) if changed else answers[:0]
        flipped, low, high = share(int((again != answers[places]).sum()), len(changed))
        found.append({"name": name, "n": len(changed), "flipped": flipped, "low": low, "high": high})
    return found
