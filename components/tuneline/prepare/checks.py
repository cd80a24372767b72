"""The audit's checks of rows, labels and what is wrong inside texts; each writes its findings into the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuneline.config import DataConfig
from tuneline.prepare import facts
from tuneline.prepare.classes import shown
from tuneline.prepare.findings import Ledger, Rows, counted
from tuneline.scripts import NAMES as SCRIPTS

if TYPE_CHECKING:
    import numpy as np

SORTED_RUNS = 0.1
"""A source is in the order of its labels if they change this much more rarely than by chance."""
SORTED_ROWS = 50
"""Fewer rows than this may look sorted by chance."""


def _place(rows: Rows, name: str, where: np.ndarray) -> str:
    """The source and the first of these rows."""
    return f"{rows.uri(name)}: row {rows.row[where].min() + 1}"


def empty(ledger: Ledger, data: DataConfig) -> None:
    """Rows whose text, or second text, has no visible character."""
    rows = ledger.rows
    columns = f"column {data.text_column!r}" + (f" or {data.pair_column!r}" if data.pair_column else "")
    empty = rows.flags & facts.EMPTY != 0
    for name in rows.origins:
        if (found := empty & rows.given(name)).any():
            refusal = f"{_place(rows, name, found)}, {columns}: empty text; remove the row or fill it in"
            ledger.add(
                "empty_text", [name], found,
                f"{counted(found.sum(), 'row')} of {name} without a visible character in {columns}",
                fix="removes the rows", done=f"removed {counted(found.sum(), 'row')}", refusal=refusal,
            )  # fmt: skip
    if ledger.action("empty_text") == "fix":
        ledger.remove(empty, "their text is empty")


def unlabelled(ledger: Ledger, data: DataConfig) -> None:
    """Rows without a label leave under every policy that goes on: nothing can be learned or measured on them."""
    rows = ledger.rows
    missing = rows.label < 0
    for name in rows.origins:
        if (found := missing & rows.given(name)).any():
            place = f"{_place(rows, name, found)}, column {data.label_column!r}"
            gone = f"removed {counted(found.sum(), 'row')}"
            ledger.add(
                "missing_label", [name], found, f"{counted(found.sum(), 'row')} of {name} without a label",
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


def small_classes(ledger: Ledger, labels: list[str], least: int) -> None:
    """Classes with fewer training rows than data.min_class_rows."""
    import numpy as np

    rows, counts = ledger.rows, _counts(ledger, labels, "train")
    small = np.flatnonzero((counts > 0) & (counts < least))
    found = np.isin(rows.label, small)
    ledger.add(
        "small_class", ["train"], found & rows.of("train"),
        f"{counted(len(small), 'class')} of fewer than {least} training rows (data.min_class_rows): "
        f"{_listed(labels, small, counts)}",
        count=len(small), fix="removes the classes from all splits",
        done=f"removed {counted(found.sum(), 'row')} of all splits",
    )  # fmt: skip
    if ledger.action("small_class") == "fix":
        ledger.remove(found, f"their classes have fewer than {least} training rows")


def unknown_labels(ledger: Ledger, labels: list[str]) -> None:
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
                f"{counted(found.sum(), 'row')} of {name} under labels that no training row has: "
                f"{_listed(labels, classes)}",
                fix="removes the rows", done=f"removed {counted(found.sum(), 'row')}",
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


def damage(ledger: Ledger) -> None:
    """Control characters, mojibake and markup."""
    for check, (bit, what, fix) in DAMAGE.items():
        bad = ledger.rows.flags & bit != 0
        for name in ledger.rows.origins:
            found = bad & ledger.rows.given(name)
            message = f"{counted(found.sum(), 'text')} of {name} with {what}"
            ledger.add(check, [name], found, message, fix=fix, done="cleaned the texts, as the model will do too")


def personal(ledger: Ledger) -> None:
    """E-mail addresses, phone and card numbers: counted, and never shown."""
    kinds = {
        "with an e-mail address": facts.EMAIL,
        "with a phone number": facts.PHONE,
        "with a card number": facts.CARD,
    }
    flags = ledger.rows.flags
    for name in ledger.rows.origins:
        here = ledger.rows.given(name)
        counts = {kind: int((here & (flags & bit != 0)).sum()) for kind, bit in kinds.items()}
        told = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
        found = here & (flags & (facts.EMAIL | facts.PHONE | facts.CARD) != 0)
        ledger.add(
            "personal_data", [name], found, f"{counted(found.sum(), 'text')} of {name} with personal data: {told}",
            fix="puts placeholders in their place", done="put placeholders in their place, as the model will do too",
        )  # fmt: skip


def in_label_order(ledger: Ledger) -> None:
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
                f"{name} is in the order of its labels: from row to row they change {counted(changes, 'time')}, in a "
                f"random order about {by_chance:,.0f}",
                count=len(labels), done="none; rows are drawn by content", kept="none; rows are drawn by content",
            )  # fmt: skip


def classes(ledger: Ledger, labels: list[str]) -> None:
    """Class balance, and classes that one split alone has."""
    import numpy as np

    rows = ledger.rows
    counts = {name: _counts(ledger, labels, name) for name in rows.names}
    train = counts["train"]
    if train.any():
        few, many = train[train > 0].min(), train.max()
        count = counted((train > 0).sum(), "class")
        message = f"{count} of {few:,} to {many:,} training rows; the largest has {many / train.sum():.1%}"
        ledger.tell("class_balance", ["train"], int((train > 0).sum()), message)
    here = np.array([of_split > 0 for of_split in counts.values()])
    for at, name in enumerate(counts):
        alone = np.flatnonzero(here[at] & (here.sum(0) == 1))
        if len(alone) and len(counts) > 1:
            message = f"{counted(len(alone), 'class')} only in {name}: {_listed(labels, alone, counts[name])}"
            ledger.tell("label_in_one_split", [name], len(alone), message)


def scripts(ledger: Ledger) -> None:
    """The scripts of each given split, where it has several."""
    import numpy as np

    rows = ledger.rows
    for name in rows.origins:
        counts = np.bincount(rows.script[rows.given(name)], minlength=len(SCRIPTS))
        present = [at for at in np.argsort(-counts, kind="stable").tolist() if at and counts[at]]
        told = ", ".join(f"{SCRIPTS[at]} {counts[at] / max(counts.sum(), 1):.1%}" for at in present)
        if len(present) > 1:
            ledger.tell("scripts", [name], len(present), f"{name} is written in {len(present)} scripts: {told}")
