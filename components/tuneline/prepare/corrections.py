"""Corrected labels: a label_errors.csv of an earlier run, in which a person filled in the column new_label.

A correction finds its rows by a hash of the text, so that it holds when the file's order or its number of rows changed.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tuneline.errors import InputError, NotHereError
from tuneline.prepare.classes import shown
from tuneline.tables.files import expanded, shown_column, shown_columns

DROP = "-"
"""In new_label: take the row out. A label that is called so is written '-."""
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
"""What a spreadsheet may take for a formula, and the mark itself."""
NEEDED = ("new_label", "key")
_KEY = re.compile(r"k[0-9a-f]{32}")


def guarded(cell: str) -> str:
    """The cell with a leading ' where a spreadsheet would compute it, or where it begins with one."""
    return f"'{cell}" if cell.startswith(FORMULA) else cell


def unguarded(cell: str) -> str:
    """The cell as it was before guarded."""
    return cell.removeprefix("'")


def key(text: str, pair: str | None = None) -> str:
    """What names a text, or a pair of texts: k, for a spreadsheet would take some for numbers, and 32 hex digits."""
    digest = hashlib.sha256()
    for value in (text,) if pair is None else (text, pair):
        data = value.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return f"k{digest.hexdigest()[:32]}"


@dataclass
class Corrections:
    """New labels by key, and how often each was applied.

    Attributes:
        source: the file.
        labels: new label of each key; None removes its rows.
        lines: the file's row (from 1) that each key was found in.
        applied: rows that each key met.
        given: the labels that the rows had before.
    """

    source: str
    labels: dict[str, str | None]
    lines: dict[str, int] = field(default_factory=dict)
    applied: Counter[str] = field(default_factory=Counter)
    given: set[str] = field(default_factory=set)

    def apply(
        self, texts: Sequence[str], pairs: Sequence[str] | None, labels: Sequence[str | None]
    ) -> tuple[list[str | None], list[bool]]:
        """Correct a batch.

        Args:
            texts: the texts, as label_errors saw them.
            pairs: the second texts, where there are any.
            labels: their labels.

        Returns:
            The labels, and whether each row is kept.
        """
        self.given.update(label for label in labels if label is not None)
        new, kept = list(labels), [True] * len(labels)
        if not self.labels:
            return new, kept
        for index, text in enumerate(texts):
            name = key(text, None if pairs is None else pairs[index])
            if name in self.labels:
                self.applied[name] += 1
                label = self.labels[name]
                kept[index] = label is not None
                new[index] = new[index] if label is None else label
        return new, kept

    def check_labels(self) -> None:
        """Refuse a new label that no row had, once all rows were seen: a typo would become a class.

        Raises:
            InputError: there is one; names its row.
        """
        for name, label in self.labels.items():
            if label is not None and label not in self.given:
                raise InputError(
                    f"data.corrections: {self.source}: row {self.lines[name]}, column 'new_label': {shown(label)} is "
                    f"no label of the training data; allowed: {_some(self.given)}, or {DROP} to remove the row"
                )

    def told(self) -> list[str]:
        """Sentences for the notes, once all rows were seen."""
        removed = sum(count for name, count in self.applied.items() if self.labels[name] is None)
        relabelled = self.applied.total() - removed
        notes = [f"corrections: {relabelled} rows relabelled, {removed} removed, by {len(self.applied)} corrections"]
        if lost := len(self.labels) - len(self.applied):
            notes.append(f"corrections: {lost} of {len(self.labels)} match no text of the data; it may have changed")
        return notes


def load(path: str, label_map: Mapping[str, str] | None = None) -> Corrections:
    """Read a file of corrections; rows without a new label say nothing.

    It may have been saved by a spreadsheet: any of four delimiters, UTF-8 or UTF-16.

    Args:
        path: a CSV with at least the columns new_label and key.
        label_map: new names for labels as written, data.label_map.

    Raises:
        InputError: not there, not readable, or a row that is none; names the row (from 1, without the header).
    """
    place = f"data.corrections: {path}"
    labels: dict[str, str | None] = {}
    lines: dict[str, int] = {}
    for number, row in enumerate(_rows(_text(path, place), place), start=1):
        written = row["new_label"].strip()
        if not written:
            continue
        name = row["key"].strip()
        if not _KEY.fullmatch(name):
            raise InputError(
                f"{place}: row {number}, column 'key': {shown_column(name)} found; keep it as it was written"
            )
        label = None if written == DROP else (label_map or {}).get(unguarded(written), unguarded(written))
        if name in labels and labels[name] != label:
            raise InputError(
                f"{place}: row {number}, column 'new_label': row {lines[name]} says otherwise about the same text; "
                f"make them agree"
            )
        labels.setdefault(name, label)
        lines.setdefault(name, number)
    return Corrections(path, labels, lines)


def _text(path: str, place: str) -> str:
    file = expanded(path)
    if not file.is_file():
        raise NotHereError(f"{place}: no such file; give a label_errors.csv whose column new_label is filled in")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{place}: cannot be read ({error.strerror})") from None
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{place}: line {line}: not UTF-8; save it as CSV UTF-8") from None


def _rows(text: str, place: str) -> Iterable[dict[str, str]]:
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    number = 0
    try:
        header = [cell.strip() for cell in next(reader, [])]
        for column in NEEDED:
            if header.count(column) != 1:
                raise InputError(f"{place}: its header needs one column {column!r}; found {shown_columns(header)}")
        for cells in filter(None, reader):
            number += 1
            if len(cells) != len(header):
                raise InputError(
                    f"{place}: row {number} (line {reader.line_num}) has {len(cells)} cells, the header has "
                    f"{len(header)}; quote texts that hold delimiters or line breaks"
                )
            yield dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise InputError(f"{place}: row {number + 1} (line {reader.line_num}): {error}") from None


def _delimiter(text: str) -> str:
    """What parts the header's cells, none of which holds any of these."""
    header = text.split("\n", 1)[0]
    return max(",;\t|", key=header.count)


def _some(names: Collection[str]) -> str:
    first = [shown(name) for name in sorted(names)[:10]]
    return ", ".join(first) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def fingerprint(path: str) -> str:
    """What pins a file of corrections: its content.

    Raises:
        InputError: not there, or not readable.
    """
    return hashlib.sha256(_text(path, f"data.corrections: {path}").encode()).hexdigest()
