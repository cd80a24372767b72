"""The audit: what is wrong with labelled text, how much of it, where, and what the policy lets the step do about it.

`check` looks at the facts of all splits before a text is tokenized, `truncated` at the tokens afterwards, and `refuse`
stops the step where the policy says fail: last, so that the page about it is written first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuneline.artifacts import SPLITS
from tuneline.config import DataConfig
from tuneline.errors import InputError
from tuneline.prepare import facts, repeats
from tuneline.prepare.findings import SEVERITIES, Finding, Ledger, Rows, SplitFacts, shown

if TYPE_CHECKING:
    import numpy as np

MANY_CUT = 0.1
"""The share of texts beyond model.max_length from which they are a finding."""
SORTED_RUNS = 0.1
"""A source is in the order of its labels if they change this much more rarely than by chance."""
SORTED_ROWS = 50
"""Fewer rows than this may look sorted by chance."""


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        findings: errors first, then warnings, then what is good to know.
        drop: for each split, bool [rows]: the rows that leave.
        notes: one sentence for each removal.
        facts: numbers for the page, ready for JSON: rows, duplicates, scripts, chars, classes.
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
    _empty(ledger, data)
    _unlabelled(ledger, data)
    counted = repeats.check(ledger, data.near_duplicates)
    _small_classes(ledger, labels, data.min_class_rows)
    _unknown_labels(ledger, labels)
    _damage(ledger)
    _personal(ledger)
    _sorted(ledger)
    _classes(ledger, labels)
    _scripts(ledger)
    drop = {name: ledger.drop[rows.of(name)] for name in rows.names}
    return Audit(_ranked(ledger.findings), drop, ledger.notes, _facts(ledger, labels) | {"duplicates": counted})


def _ranked(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda found: SEVERITIES.index(found.severity))


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
        longest = f"half of the {name} texts have more than {np.median(lengths):.0f}, the longest {lengths.max()}"
        message = f"{len(cut)} texts of {name} ({len(cut) / len(lengths):.0%}) have more than {max_length} tokens; {longest}"
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
        InputError: a finding is an error; names the first one's place and the keys that allow it.
    """
    errors = [found for found in findings if found.severity == "error"]
    if errors:
        more = f"; and {len(errors) - 1} more findings stop the run" if len(errors) > 1 else ""
        raise InputError(f"{errors[0].refusal}{more}{f'; all findings: {page}' if page else ''}")


def _place(rows: Rows, name: str, where: np.ndarray) -> str:
    """The source and the first of these rows."""
    return f"{rows.uri(name)}: row {rows.row[where].min() + 1}"


def _empty(ledger: Ledger, data: DataConfig) -> None:
    rows = ledger.rows
    columns = f"column {data.text_column!r}" + (f" or {data.pair_column!r}" if data.pair_column else "")
    empty = rows.flags & facts.EMPTY != 0
    for name in rows.origins:
        if (found := empty & rows.given(name)).any():
            refusal = f"{_place(rows, name, found)}, {columns}: empty text; remove the row or fill it in"
            ledger.add(
                "empty_text", [name], found, f"{found.sum()} rows of {name} have no visible character in {columns}",
                fix="removes the rows", done=f"removed {found.sum()} rows", refusal=refusal,
            )  # fmt: skip
    if ledger.action("empty_text") == "fix":
        ledger.remove(empty, "their text is empty")


def _unlabelled(ledger: Ledger, data: DataConfig) -> None:
    """Rows without a label leave under every policy that goes on: nothing can be learned or measured on them."""
    rows = ledger.rows
    missing = rows.label < 0
    for name in rows.origins:
        if (found := missing & rows.given(name)).any():
            place = f"{_place(rows, name, found)}, column {data.label_column!r}"
            gone = f"removed {found.sum()} rows"
            ledger.add(
                "missing_label", [name], found, f"{found.sum()} rows of {name} have no label",
                fix="removes the rows", done=gone, kept=gone,
                refusal=f"{place}: no label; remove the row or label it",
            )  # fmt: skip
    if ledger.action("missing_label") != "fail":
        ledger.remove(missing, "they have no label")


def _counts(ledger: Ledger, labels: list[str], split: str) -> np.ndarray:
    """Rows of each class that are left in a split."""
    import numpy as np

    rows = ledger.rows
    return np.bincount(rows.label[rows.of(split) & rows.sound & ~ledger.drop], minlength=len(labels))


def _listed(labels: list[str], chosen: np.ndarray, counts: np.ndarray | None = None) -> str:
    """Up to five of the chosen classes, with their counts."""
    names = [shown(labels[at]) + (f" ({counts[at]})" if counts is not None else "") for at in chosen[:5].tolist()]
    return ", ".join(names) + (", …" if len(chosen) > 5 else "")


def _small_classes(ledger: Ledger, labels: list[str], least: int) -> None:
    import numpy as np

    rows, counts = ledger.rows, _counts(ledger, labels, "train")
    small = np.flatnonzero((counts > 0) & (counts < least))
    found = np.isin(rows.label, small)
    ledger.add(
        "small_class", ["train"], found & rows.of("train"),
        f"{len(small)} classes have fewer than {least} training rows (data.min_class_rows): "
        f"{_listed(labels, small, counts)}",
        count=len(small), fix="removes the classes from all splits", done=f"removed {found.sum()} rows of all splits",
    )  # fmt: skip
    if ledger.action("small_class") == "fix":
        ledger.remove(found, f"their classes have fewer than {least} training rows")


def _unknown_labels(ledger: Ledger, labels: list[str]) -> None:
    """Classes that only held-out rows have; with fewer than two in training there is nothing to compare them with."""
    import numpy as np

    rows, known = ledger.rows, _counts(ledger, labels, "train") > 0
    if known.sum() < 2:
        return
    unknown = rows.sound & ~ledger.drop & ~known[rows.label]
    for name in rows.names[1:]:
        if (found := unknown & rows.of(name)).any():
            first = np.flatnonzero(found)[0]
            classes = np.unique(rows.label[found])
            ledger.add(
                "unknown_label", [name], found,
                f"{found.sum()} rows of {name} have labels that no training row has: {_listed(labels, classes)}",
                fix="removes the rows", done=f"removed {found.sum()} rows",
                kept="none; the model gets outputs for them that it cannot learn",
                refusal=f"data.{name}: row {rows.row[first] + 1}: label {shown(labels[rows.label[first]])} does not "
                f"occur in the training rows; add examples to train or remove the row",
            )  # fmt: skip
    if ledger.action("unknown_label") == "fix":
        ledger.remove(unknown, "no training row has their labels")


DAMAGE = {
    "control_characters": (facts.CONTROL, "control characters, which print nothing", "takes them out"),
    "mojibake": (facts.MOJIBAKE, "characters that a wrong encoding made", "repairs them"),
    "markup": (facts.MARKUP, "HTML tags or entities", "takes them out"),
}


def _damage(ledger: Ledger) -> None:
    for check, (bit, what, fix) in DAMAGE.items():
        bad = ledger.rows.flags & bit != 0
        for name in ledger.rows.origins:
            found = bad & ledger.rows.given(name)
            message = f"{found.sum()} texts of {name} hold {what}"
            ledger.add(check, [name], found, message, fix=fix, done="cleaned the texts, as the model will do too")


def _personal(ledger: Ledger) -> None:
    kinds = {"e-mail addresses": facts.EMAIL, "phone numbers": facts.PHONE, "card numbers": facts.CARD}
    flags = ledger.rows.flags
    for name in ledger.rows.origins:
        here = ledger.rows.given(name)
        counts = {kind: int((here & (flags & bit != 0)).sum()) for kind, bit in kinds.items()}
        told = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        found = here & (flags & (facts.EMAIL | facts.PHONE | facts.CARD) != 0)
        ledger.add(
            "personal_data", [name], found, f"{found.sum()} texts of {name} hold personal data: {told}",
            fix="puts placeholders in their place", done="put placeholders in their place, as the model will do too",
        )  # fmt: skip


def _sorted(ledger: Ledger) -> None:
    """Compare how often the label changes from row to row with how often it would in a random order."""
    import numpy as np

    rows = ledger.rows
    for name in rows.origins:
        at = np.flatnonzero(rows.given(name) & (rows.label >= 0))
        labels = rows.label[at[np.argsort(rows.row[at], kind="stable")]]
        shares = np.bincount(labels) / max(len(labels), 1)
        by_chance = (len(labels) - 1) * (1 - (shares**2).sum())
        changes = int((labels[1:] != labels[:-1]).sum())
        if len(labels) >= SORTED_ROWS and changes < SORTED_RUNS * by_chance:
            ledger.add(
                "sorted_by_label", [name], np.zeros(len(rows), bool),
                f"{name} is in the order of its labels: they change {changes} times from row to row, in a random order "
                f"about {by_chance:.0f} times",
                count=len(labels), done="none; rows are drawn by content", kept="none; rows are drawn by content",
            )  # fmt: skip


def _classes(ledger: Ledger, labels: list[str]) -> None:
    import numpy as np

    rows = ledger.rows
    counts = {name: _counts(ledger, labels, name) for name in rows.names}
    train = counts["train"]
    if train.any():
        few, many = train[train > 0].min(), train.max()
        message = f"{(train > 0).sum()} classes of {few} to {many} training rows; the largest has {many / train.sum():.1%}"
        ledger.tell("class_balance", ["train"], int((train > 0).sum()), message)
    here = np.array([of_split > 0 for of_split in counts.values()])
    for at, name in enumerate(counts):
        alone = np.flatnonzero(here[at] & (here.sum(0) == 1))
        if len(alone) and len(counts) > 1:
            message = f"{len(alone)} classes occur in {name} only: {_listed(labels, alone, counts[name])}"
            ledger.tell("label_in_one_split", [name], len(alone), message)


def _scripts(ledger: Ledger) -> None:
    import numpy as np

    rows = ledger.rows
    for name in rows.origins:
        counts = np.bincount(rows.script[rows.given(name)], minlength=len(facts.SCRIPTS))
        present = [at for at in np.argsort(-counts, kind="stable").tolist() if at and counts[at]]
        told = ", ".join(f"{facts.SCRIPTS[at]} {counts[at] / max(counts.sum(), 1):.1%}" for at in present)
        if len(present) > 1:
            ledger.tell("scripts", [name], len(present), f"{name} is written in {len(present)} scripts: {told}")


def _facts(ledger: Ledger, labels: list[str]) -> dict[str, Any]:
    """Numbers of the rows as they came, a split each, before any left."""
    import numpy as np

    rows = ledger.rows
    found: dict[str, Any] = {"rows": {}, "removed": {}, "scripts": {}, "chars": {}, "classes": {}}
    for name in rows.names:
        here = rows.of(name)
        scripts = np.bincount(rows.script[here], minlength=len(facts.SCRIPTS))
        chars = rows.chars[here]
        marks = np.percentile(chars, [0, 50, 99, 100]).astype(int).tolist() if len(chars) else [0] * 4
        found["rows"][name] = int(here.sum())
        found["removed"][name] = int((here & ledger.drop).sum())
        found["scripts"][name] = {facts.SCRIPTS[at]: int(scripts[at]) for at in np.flatnonzero(scripts).tolist()}
        found["chars"][name] = dict(zip(("min", "median", "p99", "max"), marks, strict=True))
        labelled = rows.label[here & (rows.label >= 0)]
        found["classes"][name] = np.bincount(labelled, minlength=len(labels)).tolist()
    return found


__all__ = ["SPLITS", "Audit", "Finding", "SplitFacts", "check", "refuse", "truncated"]
