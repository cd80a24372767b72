"""Predictions for the texts of files: rows in their order, and how they are written."""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from tuneline import registry
from tuneline.errors import InputError
from tuneline.tables import texts

if TYPE_CHECKING:
    import numpy as np

    from tuneline.serve.model import Classifier

CHUNK = 1024
PRECISIONS = ("fp32", "bf16")
FORMS = (".csv", ".jsonl", ".parquet")

Rows = Iterable[dict[str, Any]]

Texts = tuple[str, ...]
"""A text, or a text and the second one beside it."""


def predict(
    reference: str, file: str, columns: Sequence[str], tell: Callable[[int, int], None], precision: str = "fp32"
) -> Iterator[dict[str, Any]]:
    """A row a text: text, pair where there is one, label, score and p(LABEL) for each label (Classifier.told).

    Args:
        reference: MODEL@alias or MODEL/VERSION.
        file: CSV, TSV, JSON Lines or Parquet.
        columns: the column of texts, and for a model of pairs that of the second texts.
        tell: called with the texts done and the total.
        precision: fp32 or bf16.

    Raises:
        InputError: no such model or file, no such column, no rows, or one column where the model needs two.
    """
    total = counted(file, columns)
    classifier = load(registry.find(reference), precision=precision)
    for number, row in enumerate(label(classifier, read(file, columns)), start=1):
        yield row
        if number % CHUNK == 0 or number == total:
            tell(number, total)


def counted(file: str, columns: Sequence[str]) -> int:
    """How many rows a file has, all of them read, so that a bad row at the end is found before the work begins.

    Raises:
        InputError: as read, or there are none.
    """
    rows = sum(1 for _ in read(file, columns))
    if not rows:
        raise InputError(f"{file}: holds no rows")
    return rows


def read(file: str, columns: Sequence[str]) -> Iterator[Texts]:
    """The texts of a file's rows, in order; no labels are needed.

    Raises:
        InputError: not readable, no such column, or an empty text.
    """
    return zip(*(texts(file, column) for column in columns), strict=True)


def load(version: Any, weights: str = "", precision: str = "fp32") -> Classifier:
    """The classifier of a registered version.

    Args:
        version: as registry.find gives it.
        weights: what the SHA-256 of its weights must be; empty asks for none.
        precision: fp32 or bf16.

    Raises:
        InputError: not a model of tuneline, or other weights.
    """
    from tuneline.artifacts import sha256_file
    from tuneline.serve.model import Classifier

    with tempfile.TemporaryDirectory() as folder:
        model = registry.download(version, Path(folder))
        if weights and sha256_file(model / "model.safetensors") != weights:
            raise InputError(f"{version.name}/{version.version}: its weights are not those that were planned with")
        return Classifier(model, precision)


def label(classifier: Classifier, rows: Iterable[Texts]) -> Iterator[dict[str, Any]]:
    """A row a text, in order; texts are taken and answered a thousand at a time."""
    source = iter(rows)
    while part := list(islice(source, CHUNK)):
        columns = [list(column) for column in zip(*part, strict=True)]
        probabilities = classifier.predict_proba(*columns)
        for given, row, told, score in zip(part, probabilities, *classifier.told(probabilities), strict=True):
            yield answered(given, classifier.labels, row, told, score)


def answered(given: Texts, labels: Sequence[str], row: np.ndarray, told: str, score: float) -> dict[str, Any]:
    """A row of the output: the text, its label and score (Classifier.told), and all scores."""
    scores = {f"p({name})": value for name, value in zip(labels, row.tolist(), strict=True)}
    return {**dict(zip(("text", "pair"), given, strict=False)), "label": told, "score": score, **scores}


def named(column: str, pair_column: str) -> list[str]:
    """The columns to read: one, or two for pairs."""
    return [column, pair_column] if pair_column else [column]


def check_precision(precision: str) -> None:
    """Refuse a precision that no classifier has.

    Raises:
        InputError: it is neither.
    """
    if precision not in PRECISIONS:
        raise InputError(f"--precision: {precision!r} given; allowed: {', '.join(PRECISIONS)}")


def check_form(out: Path) -> None:
    """Refuse a file that write cannot write.

    Raises:
        InputError: unknown form.
    """
    if out.suffix not in FORMS:
        raise InputError(f"{out}: unknown form {out.suffix!r}; allowed: {', '.join(FORMS)}")


def write(rows: Rows, out: Path | None) -> None:
    """Write rows as CSV (stdout, .csv), JSON Lines (.jsonl) or Parquet. CSV's cells are safe to open in a spreadsheet.

    Raises:
        InputError: unknown form.
    """
    if out is None:
        _write_csv(rows, sys.stdout)
        return
    check_form(out)
    forms: dict[str, Callable[[Rows, Any], None]] = {
        ".csv": _write_csv, ".jsonl": write_json_lines, ".parquet": _write_parquet
    }  # fmt: skip
    write_whole(rows, out, forms[out.suffix])


def write_whole(rows: Rows, out: Path, form: Callable[[Rows, Any], None]) -> None:
    """Write a file whole or not at all: an old one outlives a prediction that fails."""
    part = out.with_name(f".{out.name}.part")
    try:
        text = out.suffix != ".parquet"
        with part.open("w", encoding="utf-8", newline="") if text else part.open("wb") as stream:
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


def _write_parquet(rows: Rows, stream: BinaryIO) -> None:
    """Texts and labels as strings, scores as the 32-bit numbers that they are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = iter(rows)
    kinds = {str: pa.string(), float: pa.float32(), int: pa.int64()}
    writer = None
    while part := list(islice(source, CHUNK)):
        schema = writer.schema if writer else pa.schema([(name, kinds[type(value)]) for name, value in part[0].items()])
        writer = writer or pq.ParquetWriter(stream, schema)
        writer.write_table(pa.Table.from_pylist(part, schema))
    if writer:
        writer.close()


def _safe(value: Any) -> Any:
    """A cell that a spreadsheet would run as a formula gets an apostrophe in front; a number, such as -1, is none."""
    if not isinstance(value, str) or value[:1] not in ("=", "+", "-", "@", "\t", "\r"):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
