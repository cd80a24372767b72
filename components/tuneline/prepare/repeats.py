"""The audit's checks of what stands twice: exact, folded and near copies, and one text under two labels."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

from tuneline.artifacts import SPLITS
from tuneline.prepare.duplicates import groups
from tuneline.prepare.facts import fold
from tuneline.prepare.findings import Ledger, Rows, counted

if TYPE_CHECKING:
    import numpy as np

HELD_OUT = {"train": "a held-out split", "validation": "the test split"}
"""Where a text stands too, when a split gives it up."""


def check(ledger: Ledger, near: float) -> list[dict[str, Any]]:
    """Find repeats, let the policy remove them, and count them for the page.

    Args:
        ledger: takes the findings.
        near: data.near_duplicates.

    Returns:
        Counts within each given split and across each two: where, exact, folded, near (None where not searched).
    """
    rows = ledger.rows
    group = _groups(rows, near)
    counted = [_within(ledger, name, group, near) for name in rows.origins]
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for low, high in combinations(rows.names, 2):
        pairs.setdefault((_named(rows, low, high), high), []).append((low, high))
    counted += [
        _across(ledger, low, high, [one for one, _ in found], group, near) for (low, high), found in pairs.items()
    ]
    _remove(ledger, group)
    return counted


def _groups(rows: Rows, near: float) -> np.ndarray:
    return groups(rows.folded, rows.band, lambda at: [fold(text) for text in rows.texts(at)], near)


def _named(rows: Rows, low: str, high: str) -> str:
    """A split that was made here goes by its data's name, unless both came with the same data."""
    origin, other = rows.parts[low].origin, rows.parts[high].origin
    return low if origin == other or SPLITS.index(origin) > SPLITS.index(high) else origin


def _firsts(rows: Rows, keys: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For each row among these, the position of the first one in its split with its key; for others, their own."""
    import numpy as np

    first = np.arange(len(rows))
    for name in rows.names:
        at = np.flatnonzero(rows.of(name) & among)
        place = np.zeros(keys.max(initial=0) + 1, np.int64)
        place[keys[at[::-1]]] = at[::-1]  # the first row is written last, and stays
        first[at] = place[keys[at]]
    return first


def _again(rows: Rows, keys: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Which of these rows repeat the key of an earlier one in their split."""
    import numpy as np

    return _firsts(rows, keys, among) != np.arange(len(rows))


def _within(ledger: Ledger, origin: str, group: np.ndarray, near: float) -> dict[str, Any]:
    rows = ledger.rows
    here = rows.given(origin) & rows.sound
    exact, alike = _again(rows, rows.exact, here), _again(rows, group, here)
    folded, all_alike = _surplus(rows.folded[here]), _surplus(group[here])
    ledger.add(
        "duplicate_in_split", [origin], exact,
        f"{counted(exact.sum(), 'exact repeat')} of earlier texts of {origin} ({folded:,} after folding case, "
        f"blanks and Unicode forms)",
        fix="keeps the first of each", done=f"removed {counted(exact.sum(), 'row')}, the first of each text stays",
    )  # fmt: skip
    more = alike & ~exact
    ledger.add(
        "near_duplicate_in_split", [origin], more,
        f"{counted(more.sum(), 'text')} of {origin} nearly like an earlier one {_how(near)}",
        fix="keeps the first of each group",
        done=f"removed {counted(more.sum(), 'text')}, the first of each group stays",
    )  # fmt: skip
    _conflicts_within(ledger, origin)
    return {"where": f"within {origin}", "exact": int(exact.sum()), "folded": folded,
            "near": all_alike if near else None}  # fmt: skip


def _surplus(keys: np.ndarray) -> int:
    """Rows beyond the first of each key, over all splits that came with the same data."""
    import numpy as np

    return len(keys) - int(np.count_nonzero(np.bincount(keys)))


def _how(near: float) -> str:
    return f"(word triples alike by {near:g} or more)" if near else "(they differ in case, blanks or Unicode forms)"


def _across(ledger: Ledger, low: str, high: str, lows: list[str], group: np.ndarray, near: float) -> dict[str, Any]:
    """Rows of `high` whose texts stand in the splits `lows`, which go by the name `low`."""
    rows = ledger.rows
    of_low = _any(rows, lows)
    exact, folded, alike = (_shared(rows, of_low, rows.of(high), keys) for keys in (rows.exact, rows.folded, group))
    both = [low, high]
    left = _shared(rows, rows.of(high), of_low, rows.exact)
    ledger.add(
        "duplicate_across_splits", both, exact | left, f"{counted(exact.sum(), 'text')} of {high} found in {low} too",
        count=int(exact.sum()), fix=f"removes them from {low}", done=f"removed {counted(left.sum(), 'row')} from {low}",
    )  # fmt: skip
    more = alike & ~exact
    near_left = _shared(rows, rows.of(high), of_low, group) & ~left
    ledger.add(
        "near_duplicate_across_splits", both, more | near_left,
        f"{counted(more.sum(), 'text')} of {high} nearly like one of {low} {_how(near)}", count=int(more.sum()),
        fix=f"removes them from {low}", done=f"removed {counted(near_left.sum(), 'row')} from {low}",
    )  # fmt: skip
    _conflicts_across(ledger, both, of_low, exact)
    return {"where": f"{high} in {low}", "exact": int(exact.sum()), "folded": int(folded.sum()),
            "near": int(alike.sum()) if near else None}  # fmt: skip


def _shared(rows: Rows, low: np.ndarray, high: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Which of the rows `high` have a key that one of the rows `low` has."""
    import numpy as np

    there = np.zeros(keys.max(initial=0) + 1, bool)
    there[keys[low & rows.sound]] = True
    return high & rows.sound & there[keys]


def _spread(keys: np.ndarray, labels: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest label of each key among these rows; the smallest is above where there are none."""
    import numpy as np

    low = np.full(keys.max(initial=0) + 1, np.iinfo(labels.dtype).max, labels.dtype)
    high = np.full_like(low, -1)
    np.minimum.at(low, keys[among], labels[among])
    np.maximum.at(high, keys[among], labels[among])
    return low, high


def _two_labels(rows: Rows, split: str) -> np.ndarray:
    """Rows of a split whose text, after folding, also stands there under another label."""
    here = rows.of(split) & rows.sound
    low, high = _spread(rows.folded, rows.label, here)
    return here & (low[rows.folded] != high[rows.folded])


def _conflicts_within(ledger: Ledger, origin: str) -> None:
    import numpy as np

    rows = ledger.rows
    found = np.logical_or.reduce([_two_labels(rows, name) for name in rows.names]) & rows.given(origin)
    texts = len(np.unique(rows.folded[found]))
    of_train = found & rows.of("train")
    kept = "" if of_train.any() else "none; only training rows are removed"
    ledger.add(
        "label_conflict", [origin], found, f"{counted(texts, 'text')} of {origin} under two labels", count=texts,
        fix="removes all their training rows", done=f"removed {counted(of_train.sum(), 'training row')}", kept=kept,
    )  # fmt: skip


def _conflicts_across(ledger: Ledger, both: list[str], of_low: np.ndarray, exact: np.ndarray) -> None:
    """Texts of a held-out split that training has under another label; they leave as duplicates across splits do."""
    rows = ledger.rows
    low, high = _spread(rows.exact, rows.label, of_low & rows.sound)
    found = exact & ((low[rows.exact] != rows.label) | (high[rows.exact] != rows.label))
    where = found | _shared(rows, found, of_low, rows.exact)
    gone = ledger.action("duplicate_across_splits") == "fix"
    told = f"removed from {both[0]} as duplicates across splits" if gone else "none; they are duplicates across splits"
    ledger.add(
        "label_conflict", both, where,
        f"{counted(found.sum(), 'text')} of {both[1]} found in {both[0]} under another label",
        count=int(found.sum()), done=told, kept=told,
    )  # fmt: skip


def _remove(ledger: Ledger, group: np.ndarray) -> None:
    """Let rows leave by policy: first what is held out, so that what is left decides what repeats within a split."""
    rows = ledger.rows
    for check, keys, what in (
        ("duplicate_across_splits", rows.exact, "their texts also stand in"),
        ("near_duplicate_across_splits", group, "texts nearly alike stand in"),
    ):
        for at, name in reversed(list(enumerate(rows.names[:-1]))):
            if ledger.action(check) == "fix":
                later = _any(rows, rows.names[at + 1 :])
                ledger.remove(_shared(rows, later, rows.of(name), keys), f"{what} {HELD_OUT[name]}")
    if ledger.action("label_conflict") == "fix":
        ledger.remove(_two_labels(rows, "train"), "their texts stand there under two labels")
    if ledger.action("duplicate_in_split") == "fix":
        ledger.remove(_again(rows, rows.exact, rows.sound & ~ledger.drop), "they repeat an earlier text")
    if ledger.action("near_duplicate_in_split") == "fix":
        first = _firsts(rows, group, rows.sound & ~ledger.drop)
        ledger.remove(rows.exact != rows.exact[first], "they are nearly an earlier text")


def _any(rows: Rows, names: list[str]) -> np.ndarray:
    """Whether each row is in one of these splits."""
    import numpy as np

    return np.logical_or.reduce([rows.of(name) for name in names])
