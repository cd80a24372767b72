"""The three splits as parts of the sources: which rows, and what is known of each. Nothing here holds a text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tuneline.artifacts import SPLITS
from tuneline.config import DataConfig, instant
from tuneline.prepare import split
from tuneline.prepare.audit import Finding, SplitFacts
from tuneline.prepare.ingest import DROPPED, Table

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Part:
    """Rows of one split, in their source's order; arrays of one entry a row.

    Attributes:
        table: where their texts are.
        origin: the split whose source that is.
        rows: places in the source, from 0; int64.
        labels: int32, as Labels numbers them.
        facts: as facts.examine gives them.
        draws: places by which a sample is drawn, uint64; None where none will be.
    """

    table: Table
    origin: str
    rows: np.ndarray
    labels: np.ndarray
    facts: dict[str, np.ndarray]
    draws: np.ndarray | None

    def take(self, which: np.ndarray) -> Part:
        """Some of the rows, by a mask or by indices in ascending order."""
        facts = {name: values[which] for name, values in self.facts.items()}
        draws = None if self.draws is None else self.draws[which]
        return replace(self, rows=self.rows[which], labels=self.labels[which], facts=facts, draws=draws)

    def sample(self, keep: int) -> Part:
        """At most `keep` rows, drawn by their content; 0 keeps all."""
        if keep == 0 or self.draws is None:
            return self
        return self.take(split.sample(self.draws, keep))

    def texts(self, positions: np.ndarray) -> list[str]:
        """The texts at these positions of the part."""
        return self.table.texts(self.rows[positions])

    def audited(self) -> SplitFacts:
        """What the audit looks at."""
        return SplitFacts(self.table.uri, self.origin, self.rows, self.labels, self.facts, self.texts)


@dataclass(frozen=True)
class Division:
    """The splits, and what is to be told of how they were made."""

    parts: dict[str, Part]
    notes: list[str]
    findings: list[Finding]


def divide(tables: dict[str, Table], data: DataConfig, names: list[str]) -> Division:
    """Take the splits that were not given off the training rows.

    Args:
        tables: the given splits; their facts are handed over, not copied.
        data: shares, dates and seed.
        names: label names, for what is told.
    """
    import numpy as np

    made = [name for name in SPLITS[1:] if name not in tables]
    parts = {name: _whole(name, table) for name, table in tables.items()}
    if (dropped := parts["train"].labels == DROPPED).any():
        parts["train"] = parts["train"].take(~dropped)
    if not made:
        return Division(parts, [], [])
    whole = parts.pop("train")
    places, times = whole.table.places["split"][whole.rows], whole.table.times
    at, moved = _assigned(places, None if times is None else times[whole.rows], whole.labels, data)
    notes = (
        [f"train: {moved} rows kept from the held-out splits, because train had none of their classes"] if moved else []
    )
    for number, name in enumerate(SPLITS):
        if name in ("train", *made):
            parts[name] = whole.take(np.flatnonzero(at == number))
    notes += [f"{name}: {len(parts[name].rows)} of {len(at)} training rows, {_way(name, data)}" for name in made]
    whole.facts.clear()
    return Division({name: parts[name] for name in SPLITS}, notes, _balance(at, whole.labels, names, data))


def _whole(name: str, table: Table) -> Part:
    import numpy as np

    return Part(table, name, np.arange(len(table.labels)), table.labels, table.facts, table.places.get("sample"))


def _assigned(
    places: np.ndarray, times: np.ndarray | None, labels: np.ndarray, data: DataConfig
) -> tuple[np.ndarray, int]:
    """The split of each training row, and how many were moved because train had none of their classes."""
    import numpy as np

    shares = {
        name: 0.0 if getattr(data, name) or getattr(data, f"{name}_from") else getattr(data, f"{name}_share")
        for name in SPLITS[1:]
    }
    at = split.assign(places, shares["validation"], shares["test"])
    decided = np.zeros(len(at), bool)
    if times is not None:
        decided = split.cut_off(at, times, instant(data.validation_from), instant(data.test_from))
    return at, split.keep_classes(at, places, labels, decided)


def _way(name: str, data: DataConfig) -> str:
    if start := getattr(data, f"{name}_from"):
        return f"from {start} on"
    return f"by a hash of {data.group_column!r}" if data.group_column else "by content hash"


def _balance(at: np.ndarray, labels: np.ndarray, names: list[str], data: DataConfig) -> list[Finding]:
    """How far the made splits are from stratified."""
    found = split.deviation(at, labels)
    if found is None:
        return []
    how = "as drawing at random gives" if found.chance else "more than drawing at random gives"
    why = "" if found.chance else " (groups and dates do that)" if data.group_column or data.time_column else ""
    message = (
        f"the class furthest from its share of all rows is {names[found.label]!r}: {found.share:.1%} of {found.split}, "
        f"{found.whole:.1%} of all, {how}{why}"
    )
    count = round(abs(found.share - found.whole) * int((at == SPLITS.index(found.split)).sum()))
    severity = "info" if found.chance else "warning"
    return [Finding("split_balance", [found.split], count, severity, "told", message)]
