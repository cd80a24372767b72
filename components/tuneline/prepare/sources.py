"""Reads labelled text from where a URI says it is, and refuses rows that no classifier can learn from."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from tuneline.errors import InputError, NotHereError
from tuneline.prepare import sample

READABLE = ".csv, .tsv, .jsonl, .parquet"


@dataclass(frozen=True)
class Source:
    """Rows of one split, in the source's order."""

    uri: str
    texts: list[str]
    labels: list[str]


def read(uri: str, split: str, text_column: str, label_column: str) -> Source:
    """Read one split.

    Args:
        uri: a file, `hf://owner/name[:config][?split=NAME&text=COLUMN&label=COLUMN]` or `sample:NAME`.
        split: the split that a hub data set or a sample gives unless the URI names one.
        text_column: column of texts.
        label_column: column of labels; whole numbers become their decimal form.

    Raises:
        InputError: nothing there, not readable, a column missing, or an empty text or label.
    """
    if uri.startswith("sample:"):
        rows: Iterable[dict[str, Any]] = sample.rows(uri, split)
    elif uri.startswith("hf://"):
        rows = _hub_rows(uri, split, text_column, label_column)
    else:
        rows = _file_rows(local_file(uri, f"data.{split}"), (text_column, label_column))
    return _check(uri, rows, text_column, label_column)


def local_file(uri: str, key: str) -> Path:
    """The path of a local source.

    Raises:
        InputError: no file is there, or its form is unknown.
    """
    path = Path(os.path.expanduser(uri))  # noqa: PTH111 - pathlib's raises for an unknown user
    if path.is_dir():
        raise InputError(f"{key}: {uri} is a directory; give a file ({READABLE})")
    if not path.is_file():
        raise NotHereError(f"{key}: {uri}: no such file; give a file ({READABLE}), relative to the current directory")
    if path.suffix.lower() not in _READERS:
        raise InputError(f"{key}: {uri}: unknown form {path.suffix or 'without a suffix'!r}; allowed: {READABLE}")
    if path.stat().st_size == 0:
        raise InputError(f"{key}: {uri} is empty (0 bytes)")
    return path


def fingerprint(uri: str, key: str) -> str:
    """What pins a source by content: a local file's SHA-256, a sample's own name, or nothing for a moving source."""
    if uri.startswith("sample:"):
        return sample.fingerprint(uri)
    if uri.startswith("hf://"):
        return ""
    with local_file(uri, key).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(uri: str, rows: Iterable[dict[str, Any]], text_column: str, label_column: str) -> Source:
    texts: list[str] = []
    labels: list[str] = []
    for number, row in enumerate(rows, start=1):
        _require(uri, list(row), (text_column, label_column), f"row {number} has")
        texts.append(_text(uri, number, text_column, row[text_column]))
        labels.append(_label(uri, number, label_column, row[label_column]))
    if not texts:
        raise InputError(f"{uri}: holds no rows")
    return Source(uri, texts, labels)


def _require(uri: str, found: list[str], columns: tuple[str, ...], place: str) -> None:
    for column, key in zip(columns, ("data.text_column", "data.label_column"), strict=False):
        if column not in found:
            names = ", ".join(repr(name) for name in found[:20])
            raise InputError(
                f"{uri}: {place} no column {column!r}; found {names or 'none'}; name yours with {key}=NAME"
            )


def _text(uri: str, number: int, column: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"{uri}: row {number}, column {column!r}: {type(value).__name__} found; a text is needed")
    if not value.strip():
        raise InputError(f"{uri}: row {number}, column {column!r}: empty text; remove the row or fill it in")
    _require_utf8(uri, number, column, value)
    return value


def _require_utf8(uri: str, number: int, column: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{uri}: row {number}, column {column!r}: half a surrogate pair at character {error.start + 1}, "
            f"which is no text; remove it"
        ) from None


def _label(uri: str, number: int, column: str, value: Any) -> str:
    if isinstance(value, float):
        value = int(value) if value.is_integer() else "" if math.isnan(value) else str(value)
    if isinstance(value, bool | int | str) and str(value).strip():
        _require_utf8(uri, number, column, str(value))
        return str(value).strip()
    raise InputError(f"{uri}: row {number}, column {column!r}: no label; remove the row or label it")


def _file_rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    return _READERS[path.suffix.lower()](path, columns)


def _decoded(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}: line {line}: byte 0x{data[error.start]:02x} is not UTF-8; convert the file, for instance "
            f"iconv -f CP1252 -t UTF-8"
        ) from None


def _delimited(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(sys.maxsize)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.reader(io.StringIO(_decoded(path), newline=""), delimiter=delimiter, strict=True)
    number = 0
    try:
        header = next(reader, [])
        _require(str(path), header, columns, "its header has")
        if twice := [column for column in columns if header.count(column) > 1]:
            raise InputError(f"{path}: its header has the column {twice[0]!r} twice; rename one")
        for cells in reader:
            if not cells:
                continue
            number += 1
            if len(cells) != len(header):
                raise InputError(
                    f"{path}: row {number} (line {reader.line_num}) has {len(cells)} cells, the header has "
                    f"{len(header)}; quote texts that hold {delimiter!r} or line breaks"
                )
            yield dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}: row {number + 1} (line {reader.line_num}): {error}") from None


def _json_lines(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    del columns
    for number, line in enumerate(_decoded(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: line {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}: line {number}: {type(row).__name__} found; a JSON object is needed")
        yield row


def _parquet(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        _require(str(path), file.schema_arrow.names, columns, "it has")
        for batch in file.iter_batches(columns=list(dict.fromkeys(columns))):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file: {error}") from None


_READERS = {".csv": _delimited, ".tsv": _delimited, ".jsonl": _json_lines, ".parquet": _parquet}


def _hub_rows(uri: str, split: str, text_column: str, label_column: str) -> Iterator[dict[str, Any]]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise InputError(f"data.{split}: {uri}: hub data needs pip install 'tuneline[hub]'") from None
    address, _, query = uri.removeprefix("hf://").partition("?")
    name, _, config = address.partition(":")
    asked = dict(parse_qsl(query, strict_parsing=False))
    source_split = asked.get("split", split)
    text, label = asked.get("text", text_column), asked.get("label", label_column)
    try:
        data: Any = load_dataset(name, config or None, split=source_split)
    except Exception as error:  # a dozen types, all of them "not to be had"
        raise InputError(
            f"data.{split}: {uri}: not to be had from the hub ({type(error).__name__}); point it at a local file: "
            f"data.{split}=PATH ({READABLE})"
            + ("" if split == "train" else f", or data.{split}= to split it off the training data")
        ) from None
    _require(uri, data.column_names, (text, label), "it has")
    names: list[str] = getattr(data.features[label], "names", None) or []
    for row in data:
        value = row[label]
        if isinstance(value, int) and 0 <= value < len(names):
            value = names[value]
        yield {text_column: row[text], label_column: value}


def read_texts(file: str, column: str) -> list[str]:
    """The texts of a file to predict on; no labels are needed.

    Raises:
        InputError: as read.
    """
    rows = _file_rows(local_file(file, "FILE"), (column,))
    texts = []
    for number, row in enumerate(rows, start=1):
        _require(file, list(row), (column,), f"row {number} has")
        texts.append(_text(file, number, column, row[column]))
    if not texts:
        raise InputError(f"{file}: holds no rows")
    return texts
