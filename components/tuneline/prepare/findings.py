"""What the audit works on, the rows of all splits end to end, and what it writes down: findings, by the policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tuneline.artifacts import SPLITS
from tuneline.config import Action, Policy

if TYPE_CHECKING:
    import numpy as np

EXAMPLES = 10
SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """One thing that the audit found.

    Attributes:
        check: its name, a key of data.policy unless it is always an error or always good to know.
        splits: the splits in which it was found; a split made here counts with the data that it was made from.
        count: how many rows, or classes, or texts, as the message says.
        severity: error (the policy is fail, or nothing can be learned from such data), warning or info.
        action: what the step did about it.
        message: one sentence.
        rows: up to ten example rows of each split's source, from 1.
        refusal: what an error says: the place, and what to do there.
    """

    check: str
    splits: list[str]
    count: int
    severity: str
    action: str
    message: str
    rows: dict[str, list[int]] = field(default_factory=dict)
    refusal: str = ""

    def told(self) -> dict[str, Any]:
        """As audit.json has it: `split` too where there is one."""
        place = {"split": self.splits[0]} if len(self.splits) == 1 else {}
        return {"check": self.check, **place, "splits": self.splits, "count": self.count, "severity": self.severity,
                "action": self.action, "message": self.message, "rows": self.rows}  # fmt: skip


@dataclass(frozen=True)
class SplitFacts:
    """The rows of one split.

    Attributes:
        uri: their source, for messages.
        origin: the split whose data was given: the split itself, or train where it was made from the training data.
        row: int64, places in the source, from 0.
        label: int32, indices into the label names, -1 where the label is missing.
        facts: arrays that facts.examine gave.
        texts: the texts at these positions of the split, for the check of near duplicates; with pairs, both of them
            joined by a line break.
    """

    uri: str
    origin: str
    row: np.ndarray
    label: np.ndarray
    facts: dict[str, np.ndarray]
    texts: Callable[[np.ndarray], list[str]]


class Rows:
    """The rows of all splits end to end, train first.

    Attributes:
        split, origin: int8 indices into SPLITS.
        names, origins: the splits that there are, and those whose data was given.
        label, row, flags, chars, script: as in SplitFacts, one entry a row.
        exact, folded: int64, the rows' texts, and folded texts, as numbers from 0: equal ones have the same.
        sound: bool, rows that have a text and a label: only they can be duplicates or small classes.
    """

    def __init__(self, splits: dict[str, SplitFacts]) -> None:
        import numpy as np

        self.parts = {name: splits[name] for name in SPLITS if name in splits}
        self.names = list(self.parts)
        sizes = [len(part.row) for part in self.parts.values()]
        self.split = np.repeat(np.array([SPLITS.index(name) for name in self.names], np.int8), sizes)
        given = [SPLITS.index(part.origin) for part in self.parts.values()]
        self.origins = [name for at, name in enumerate(SPLITS) if at in given]
        self.origin = np.repeat(np.array(given, np.int8), sizes)
        self.ends = np.cumsum(sizes)
        self.row = np.concatenate([part.row for part in self.parts.values()])
        self.label = np.concatenate([part.label for part in self.parts.values()])
        self.flags, self.chars, self.script = map(self._joined, ("flags", "chars", "script"))
        self.exact, self.folded = (np.unique(self._joined(key), return_inverse=True)[1] for key in ("exact", "folded"))
        self.sound = (self.flags & 1 == 0) & (self.label >= 0)

    def __len__(self) -> int:
        return len(self.row)

    def _joined(self, key: str) -> np.ndarray:
        import numpy as np

        return np.concatenate([part.facts[key] for part in self.parts.values()])

    def of(self, split: str) -> np.ndarray:
        """Whether each row is in this split."""
        return self.split == SPLITS.index(split)

    def given(self, origin: str) -> np.ndarray:
        """Whether each row came with this split's data."""
        return self.origin == SPLITS.index(origin)

    def uri(self, origin: str) -> str:
        """Where this split's data was read from."""
        return next(part.uri for part in self.parts.values() if part.origin == origin)

    def band(self, number: int) -> np.ndarray:
        """The rows' hashes in one band."""
        import numpy as np

        return np.concatenate([part.facts["bands"][:, number] for part in self.parts.values()])

    def texts(self, positions: np.ndarray) -> list[str]:
        """The texts of these rows, which are in ascending order."""
        import numpy as np

        found, start = [], 0
        for part, end in zip(self.parts.values(), self.ends.tolist(), strict=True):
            low, high = np.searchsorted(positions, (start, end))
            found += part.texts(positions[low:high] - start) if high > low else []
            start = end
        return found

    def examples(self, where: np.ndarray) -> dict[str, list[int]]:
        """The first rows of each given split among these, numbered from 1."""
        import numpy as np

        found = {name: np.sort(self.row[where & self.given(name)])[:EXAMPLES] + 1 for name in self.origins}
        return {name: numbers.tolist() for name, numbers in found.items() if len(numbers)}


class Ledger:
    """Findings, the rows that leave and the sentences about them, as the policy has it."""

    def __init__(self, rows: Rows, policy: Policy) -> None:
        import numpy as np

        self.rows, self.policy = rows, policy
        self.findings: list[Finding] = []
        self.drop = np.zeros(len(rows), bool)
        self.notes: list[str] = []

    def action(self, check: str) -> Action:
        """What the policy says about a check."""
        return getattr(self.policy, check)

    def add(
        self, check: str, splits: list[str], where: np.ndarray, message: str, *, count: int | None = None,
        fix: str = "", done: str = "", kept: str = "", refusal: str = "",
    ) -> None:  # fmt: skip
        """Write a finding down, unless it counts nothing.

        Args:
            check: a key of the policy.
            splits: where it was found.
            where: the rows concerned.
            message: one sentence.
            count: what the finding counts, where that is not these rows.
            fix: what fix would do; "" where there is nothing to fix.
            done: what was done, where the policy is fix.
            kept: what was done, where the policy is warn; "" says that nothing was.
            refusal: what an error says, where the policy is fail.
        """
        count = int(where.sum()) if count is None else count
        if not count:
            return
        action = self.action(check)
        offer = f"; data.policy.{check}=fix {fix}" if fix else ""
        told = {"fail": "stopped the run", "fix": done or "none", "warn": kept or f"none{offer}"}[action]
        severity = "error" if action == "fail" else "warning"
        ways = f"data.policy.{check}=fix {fix}, =warn goes on" if fix else f"data.policy.{check}=warn goes on"
        refusal = f"{refusal or f'data.{splits[-1]}: {message}'} ({ways})"
        self.findings.append(Finding(check, splits, count, severity, told, message, self.rows.examples(where), refusal))

    def tell(self, check: str, splits: list[str], count: int, message: str) -> None:
        """Write down what is good to know and needs no policy."""
        self.findings.append(Finding(check, splits, count, "info", "none", message))

    def remove(self, where: np.ndarray, why: str) -> None:
        """Rows that leave, and why, a sentence a split; those that have left already are not told again."""
        leaving = where & ~self.drop
        self.drop |= where
        for name in self.rows.names:
            if count := int((leaving & self.rows.of(name)).sum()):
                self.notes.append(f"{name}: {counted(count, 'row')} removed, because {why}")


def counted(count: int, what: str) -> str:
    """`1 row`, `14,668 rows`."""
    plural = "classes" if what == "class" else f"{what}s"
    return f"{count:,} {what if count == 1 else plural}"
