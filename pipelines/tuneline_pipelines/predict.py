"""tuneline predict: texts of a file through a registered model."""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from tuneline import registry
from tuneline.errors import InputError
from tuneline.prepare.sources import read_texts

CHUNK = 1024


def predict(reference: str, file: str, column: str, tell: Callable[[int, int], None]) -> Iterator[dict[str, Any]]:
    """A row a text: text, label, score and p(LABEL) for each label.

    Args:
        reference: MODEL@alias or MODEL/VERSION.
        file: CSV, TSV, JSON Lines or Parquet.
        column: the column of texts.
        tell: called with the texts done and the total.

    Raises:
        InputError: no such model or file, or no such column.
    """
    texts = read_texts(file, column)
    version = registry.find(reference)
    with tempfile.TemporaryDirectory() as folder:
        from tuneline.serve.model import Classifier

        classifier = Classifier(registry.download(version, Path(folder)))
    for start in range(0, len(texts), CHUNK):
        part = texts[start : start + CHUNK]
        for text, row in zip(part, classifier.predict_proba(part), strict=True):
            best = int(row.argmax())
            scores = {f"p({label})": float(value) for label, value in zip(classifier.labels, row, strict=True)}
            yield {"text": text, "label": classifier.labels[best], "score": float(row[best]), **scores}
        tell(start + len(part), len(texts))


def write(rows: Iterable[dict[str, Any]], out: Path | None) -> None:
    """Write rows as CSV (stdout, .csv) or JSON Lines (.jsonl). Cells are safe to open in a spreadsheet.

    Raises:
        InputError: unknown form.
    """
    if out is None:
        _write_csv(rows, sys.stdout)
        return
    if out.suffix not in (".csv", ".jsonl"):
        raise InputError(f"{out}: unknown form {out.suffix!r}; allowed: .csv, .jsonl")
    part = out.with_name(f".{out.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as stream:
            if out.suffix == ".csv":
                _write_csv(rows, stream)
            else:
                stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        part.replace(out)  # whole or not at all: an old file outlives a prediction that fails
    finally:
        part.unlink(missing_ok=True)


def _write_csv(rows: Iterable[dict[str, Any]], stream: TextIO) -> None:
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
