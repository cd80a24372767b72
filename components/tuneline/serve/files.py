"""Predictions for the texts of files: rows in their order, and how they are written."""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from tuneline import registry
from tuneline.errors import InputError
from tuneline.tables import texts

if TYPE_CHECKING:
    from tuneline.serve.model import Classifier

CHUNK = 1024
FORMS = (".csv", ".jsonl")

Rows = Iterable[dict[str, Any]]

Texts = tuple[str, ...]
"""A text, or a text and the second one beside it."""


def predict(
    reference: str, file: str, columns: Sequence[str], tell: Callable[[int, int], None]
) -> Iterator[dict[str, Any]]:
    """A row a text: text, pair where there is one, label, score and p(LABEL) for each label.

    Args:
        reference: MODEL@alias or MODEL/VERSION.
        file: CSV, TSV, JSON Lines or Parquet.
        columns: the column of texts, and for a model of pairs that of the second texts.
        tell: called with the texts done and the total.

    Raises:
        InputError: no such model or file, no such column, no rows, or one column where the model needs two.
    """
    rows = list(read(file, columns))  # all of them, so that a bad row at the end is found first
    if not rows:
        raise InputError(f"{file}: holds no rows")
    classifier = load(registry.find(reference))
    for number, row in enumerate(label(classifier, rows), start=1):
        yield row
        if number % CHUNK == 0 or number == len(rows):
            tell(number, len(rows))


def read(file: str, columns: Sequence[str]) -> Iterator[Texts]:
    """The texts of a file's rows, in order; no labels are needed.

    Raises:
        InputError: not readable, no such column, or an empty text.
    """
    return zip(*(texts(file, column) for column in columns), strict=True)


def load(version: Any, weights: str = "") -> Classifier:
    """The classifier of a registered version.

    Args:
        version: as registry.find gives it.
        weights: what the SHA-256 of its weights must be; empty asks for none.

    Raises:
        InputError: not a model of tuneline, or other weights.
    """
    from tuneline.artifacts import sha256_file
    from tuneline.serve.model import Classifier

    with tempfile.TemporaryDirectory() as folder:
        model = registry.download(version, Path(folder))
        if weights and sha256_file(model / "model.safetensors") != weights:
            raise InputError(f"{version.name}/{version.version}: its weights are not those that were planned with")
        return Classifier(model)


def label(classifier: Classifier, rows: Iterable[Texts]) -> Iterator[dict[str, Any]]:
    """A row a text, in order; texts are taken and answered a thousand at a time."""
    source = iter(rows)
    while part := list(islice(source, CHUNK)):
        columns = [list(column) for column in zip(*part, strict=True)]
        for given, row in zip(part, classifier.predict_proba(*columns), strict=True):
            best = int(row.argmax())
            scores = {f"p({name})": float(value) for name, value in zip(classifier.labels, row, strict=True)}
            answer = {"label": classifier.labels[best], "score": float(row[best])}
            yield dict(zip(("text", "pair"), given, strict=False)) | answer | scores


def named(column: str, pair_column: str) -> list[str]:
    """The columns to read: one, or two for pairs."""
    return [column, pair_column] if pair_column else [column]


def check_form(out: Path) -> None:
    """Refuse a file that write cannot write.

    Raises:
        InputError: unknown form.
    """
    if out.suffix not in FORMS:
        raise InputError(f"{out}: unknown form {out.suffix!r}; allowed: {', '.join(FORMS)}")


def write(rows: Rows, out: Path | None) -> None:
    """Write rows as CSV (stdout, .csv) or JSON Lines (.jsonl). Cells are safe to open in a spreadsheet.

    Raises:
        InputError: unknown form.
    """
    if out is None:
        _write_csv(rows, sys.stdout)
        return
    check_form(out)
    write_whole(rows, out, _write_csv if out.suffix == ".csv" else write_json_lines)


def write_whole(rows: Rows, out: Path, form: Callable[[Rows, TextIO], None]) -> None:
    """Write a file whole or not at all: an old one outlives a prediction that fails."""
    part = out.with_name(f".{out.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as stream:
            form(rows, stream)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def write_json_lines(rows: Rows, stream: TextIO) -> None:
    """Write rows as JSON Lines, texts as they are."""
    stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_csv(rows: Rows, stream: TextIO) -> None:
    writer = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(stream, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow({name: _safe(value) for name, value in row.items()})


def _safe(value: Any) -> Any:
    """A cell that a spreadsheet would run as a formula gets an apostrophe in front; a number, such as -1, is none."""
    if not isinstance(value, str) or value[:1] not in ("=", "+", "-", "@", "\t", "\r"):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
