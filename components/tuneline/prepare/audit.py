"""The audit: what is wrong with labelled text, how much of it, where, and what the policy lets the step do about it.

`check` looks at the facts of all splits before a text is tokenized, `truncated` at the tokens afterwards, and `refuse`
stops the step where the policy says fail: last, so that the page about it is written first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuneline.config import DataConfig
from tuneline.errors import InputError
from tuneline.prepare import checks, repeats
from tuneline.prepare.findings import SEVERITIES, Finding, Ledger, Rows, SplitFacts, counted
from tuneline.scripts import NAMES as SCRIPTS

if TYPE_CHECKING:
    import numpy as np

MANY_CUT = 0.1
"""The share of texts beyond model.max_length from which they are a finding."""
CHECKS = (
    "empty_text", "missing_label", "unknown_label", "duplicate_across_splits", "near_duplicate_across_splits",
    "label_conflict", "small_class", "duplicate_in_split", "near_duplicate_in_split", "truncated", "mojibake",
    "control_characters", "markup", "personal_data", "sorted_by_label",
)  # fmt: skip
"""The order in which findings of a severity are told."""


class RefusedError(InputError):
    """The audit holds an error."""


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        findings: errors first, then warnings, then what is good to know.
        drop: for each split, bool [rows]: the rows that leave.
        notes: one sentence for each removal.
        facts: numbers for the page, ready for JSON: rows, removed, labels, classes, chars, scripts, duplicates.
    """

    findings: list[Finding]
    drop: dict[str, np.ndarray]
    notes: list[str]
    facts: dict[str, Any]


def check(splits: dict[str, SplitFacts], labels: list[str], data: DataConfig) -> Audit:
    """Audit the splits as they are before samples are drawn.

    Args:
        splits: facts of train, validation and test.
        labels: the label names that SplitFacts.label points to.
        data: the policy, the columns' names, near_duplicates and min_class_rows.
    """
    rows = Rows(splits)
    ledger = Ledger(rows, data.policy)
    checks.empty(ledger, data)
    checks.unlabelled(ledger, data)
    repeated = repeats.check(ledger, data.near_duplicates)
    checks.small_classes(ledger, labels, data.min_class_rows)
    checks.unknown_labels(ledger, labels)
    checks.damage(ledger)
    checks.personal(ledger)
    checks.in_label_order(ledger)
    checks.classes(ledger, labels)
    checks.scripts(ledger)
    drop = {name: ledger.drop[rows.of(name)] for name in rows.names}
    return Audit(
        ranked(ledger.findings), drop, ledger.notes, _facts(ledger, labels) | {"duplicates": repeated, "labels": labels}
    )


def ranked(findings: list[Finding]) -> list[Finding]:
    """Findings by severity, then what spoils a figure before what spoils a text, as CHECKS has it."""
    order = {check: at for at, check in enumerate(CHECKS)}
    return sorted(findings, key=lambda found: (SEVERITIES.index(found.severity), order.get(found.check, len(order))))


def truncated(
    totals: dict[str, np.ndarray], max_length: int, long_texts: str, data: DataConfig, rows: dict[str, np.ndarray]
) -> list[Finding]:
    """A finding for each split of which more than a tenth is longer than the model reads.

    Args:
        totals: tokens of each uncut text in use, special tokens included.
        max_length: model.max_length.
        long_texts: model.long_texts; windows leave nothing out.
        data: the policy.
        rows: the texts' places in their sources, from 0.
    """
    import numpy as np

    found = []
    for name, lengths in totals.items():
        cut = np.flatnonzero(lengths > max_length)
        if len(cut) <= MANY_CUT * len(lengths):
            continue
        whole = long_texts == "windows"
        longest = f"half of {name} has more than {np.median(lengths):,.0f}, the longest {lengths.max():,}"
        share = f"{counted(len(cut), 'text')} of {name} ({len(cut) / len(lengths):.0%})"
        message = f"{share} longer than {max_length} tokens; {longest}"
        severity = "info" if whole else "error" if data.policy.truncated == "fail" else "warning"
        kept = {"head": "head", "tail": "tail", "head_tail": "head and tail"}.get(long_texts, "")
        action = "read in windows" if whole else "stopped the run" if severity == "error" else f"kept their {kept}"
        way = f"data.{name}: {message} (model.max_length, or data.policy.truncated=warn goes on)"
        examples = {name: (np.sort(rows[name][cut])[:10] + 1).tolist()}
        found.append(Finding("truncated", [name], len(cut), severity, action, message, examples, way))
    return found


def refuse(findings: list[Finding], page: str = "") -> None:
    """Stop where the policy says fail.

    Args:
        findings: all of them.
        page: where the audit's page is, for the message.

    Raises:
        RefusedError: a finding is an error; names the first one's place and the keys that allow it.
    """
    errors = [found for found in findings if found.severity == "error"]
    if errors:
        more = f"; and {len(errors) - 1} more findings stop the run" if len(errors) > 1 else ""
        raise RefusedError(f"{errors[0].refusal}{more}{f'; all findings: {page}' if page else ''}")


def _facts(ledger: Ledger, labels: list[str]) -> dict[str, Any]:
    """Numbers of the rows as they came, a split each, before any left."""
    import numpy as np

    rows = ledger.rows
    found: dict[str, Any] = {"rows": {}, "removed": {}, "scripts": {}, "chars": {}, "classes": {}}
    for name in rows.names:
        here = rows.of(name)
        scripts = np.bincount(rows.script[here], minlength=len(SCRIPTS))
        chars = rows.chars[here]
        marks = np.percentile(chars, [0, 50, 99, 100]).astype(int).tolist() if len(chars) else [0] * 4
        found["rows"][name] = int(here.sum())
        found["removed"][name] = int((here & ledger.drop).sum())
        found["scripts"][name] = {SCRIPTS[at]: int(scripts[at]) for at in np.flatnonzero(scripts).tolist()}
        found["chars"][name] = dict(zip(("min", "median", "p99", "max"), marks, strict=True))
        labelled = rows.label[here & (rows.label >= 0)]
        found["classes"][name] = np.bincount(labelled, minlength=len(labels)).tolist()
    return found


__all__ = ["Audit", "Finding", "RefusedError", "SplitFacts", "check", "refuse", "truncated"]
