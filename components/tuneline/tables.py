"""Rows of local files: CSV, TSV, JSON Lines and Parquet, and what a text must be. prepare and serve both read by it."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuneline.errors import InputError, NotHereError

READABLE = ".csv, .tsv, .jsonl, .parquet"


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


def file_rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Rows of a file that local_file gave, with at least these columns.

    Raises:
        InputError: not readable, or a column missing.
    """
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
        require(str(path), header, columns, "its header has")
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
        require(str(path), file.schema_arrow.names, columns, "it has")
        for batch in file.iter_batches(columns=list(dict.fromkeys(columns))):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file: {error}") from None


_READERS = {".csv": _delimited, ".tsv": _delimited, ".jsonl": _json_lines, ".parquet": _parquet}


def require(uri: str, found: list[str], columns: tuple[str, ...], place: str) -> None:
    """Refuse a source without these columns, of texts and of labels.

    Raises:
        InputError: one is not among those found; `place` says where, such as `row 3 has`.
    """
    for column, key in zip(columns, ("data.text_column", "data.label_column"), strict=False):
        if column not in found:
            names = ", ".join(repr(name) for name in found[:20])
            raise InputError(
                f"{uri}: {place} no column {column!r}; found {names or 'none'}; name yours with {key}=NAME"
            )


def check_text(uri: str, number: int, column: str, value: Any) -> str:
    """The value of a cell, which must be a text.

    Raises:
        InputError: it is none, or empty, or cannot be written as UTF-8.
    """
    if not isinstance(value, str):
        raise InputError(f"{uri}: row {number}, column {column!r}: {type(value).__name__} found; a text is needed")
    if not value.strip():
        raise InputError(f"{uri}: row {number}, column {column!r}: empty text; remove the row or fill it in")
    require_utf8(uri, number, column, value)
    return value


def require_utf8(uri: str, number: int, column: str, value: str) -> None:
    """Refuse half of a surrogate pair, which JSON can hold and UTF-8 cannot.

    Raises:
        InputError: there is one.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{uri}: row {number}, column {column!r}: half a surrogate pair at character {error.start + 1}, "
            f"which is no text; remove it"
        ) from None


def texts(file: str, column: str) -> Iterator[str]:
    """The texts of a file to predict on, in order; no labels are needed.

    Raises:
        InputError: not readable, no such column, or an empty text.
    """
    for number, row in enumerate(file_rows(local_file(file, "FILE"), (column,)), start=1):
        require(file, list(row), (column,), f"row {number} has")
        yield check_text(file, number, column, row[column])


def read_texts(file: str, column: str) -> list[str]:
    """All of them at once, so that a bad row at the end is found first.

    Raises:
        InputError: as texts, or the file holds no rows.
    """
    found = list(texts(file, column))
    if not found:
        raise InputError(f"{file}: holds no rows")
    return found
