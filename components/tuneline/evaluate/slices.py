"""Parts of the test rows, and in which of them the model is worse than in the rest beyond chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tuneline import scripts
from tuneline.statistics import LEVEL, fisher_less, holm, share

if TYPE_CHECKING:
    import numpy as np

SMALLEST = 10
"""Rows that a part needs to be looked at."""
MOST_VALUES = 30
"""Values of a column, the most frequent first, that are parts of their own."""
EMPTY = "(empty)"


def parts(
    lengths: np.ndarray,
    truncated: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    texts: Sequence[str],
    columns: Mapping[str, Sequence[Any]] | None = None,
) -> dict[str, np.ndarray]:
    """The parts of the rows that are looked at, bool [rows] each: by length, label, script and column, and those cut.

    A part of fewer than 10 rows or of all rows is left out.

    Args:
        lengths: [rows] tokens of each text.
        truncated: bool [rows], whether the text was cut.
        labels: [rows] class indices.
        names: label names.
        texts: for their scripts; of a pair both, as the audit reads them.
        columns: further columns of the source, by name, a value a row; of each the 30 most frequent values are parts.
    """
    import numpy as np

    found = _by_length(lengths) | {"cut": np.asarray(truncated, bool)}
    values = {"label": [names[index] for index in labels], "script": [scripts.NAMES[at] for at in scripts.of(texts)]}
    for column, of_rows in (columns or {}).items():
        values[f"column {column}" if column in (*values, "length", "cut") else column] = of_rows
    for column, of_rows in values.items():
        found |= _by_value(column, of_rows, len(names) if column == "label" else MOST_VALUES)
    return {name: part for name, part in found.items() if SMALLEST <= part.sum() < len(labels)}


def _by_length(lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Quarters of the rows by length; equal lengths stay together."""
    import numpy as np

    ends = np.unique(np.quantile(lengths, [0.25, 0.5, 0.75, 1.0], method="higher"))
    starts = np.concatenate([np.sort(lengths)[:1], ends[:-1] + 1])
    return {
        f"length: {start} to {end} tokens": (lengths >= start) & (lengths <= end)
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    }


def _by_value(column: str, values: Sequence[Any], most: int) -> dict[str, np.ndarray]:
    import numpy as np

    told = np.array([EMPTY if value in (None, "") else str(value) for value in values], object)
    kinds, places, counts = np.unique(told.astype(str), return_inverse=True, return_counts=True)
    frequent = sorted(np.argsort(-counts, kind="stable")[:most].tolist())
    return {f"{column}: {kinds[index]}": places == index for index in frequent}


def examine(found: Mapping[str, np.ndarray], right: np.ndarray) -> list[dict[str, Any]]:
    """name, n, accuracy, low, high, p, worse of each part, the worst first.

    `p` is that of Fisher's exact one-sided test against the other rows, corrected for all parts together (Holm 1979);
    `worse` where it is at most 0.05.

    Args:
        found: bool [rows] for each part (parts).
        right: bool [rows], whether the answer was right.
    """
    counts = [(int((right & part).sum()), int(part.sum())) for part in found.values()]
    total, rows = int(right.sum()), len(right)
    p_values = holm([fisher_less(hit, n, total - hit, rows - n) for hit, n in counts])
    table = []
    for name, (hit, n), p in zip(found, counts, p_values.tolist(), strict=True):
        accuracy, low, high = share(hit, n)
        worse = p <= 1 - LEVEL
        table.append({"name": name, "n": n, "accuracy": accuracy, "low": low, "high": high, "p": p, "worse": worse})
    return sorted(table, key=lambda row: (row["p"], row["accuracy"], row["name"]))
