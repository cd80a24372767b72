"""What a file of rows is: its form by its name, and what its first bytes say against that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Union

from tuneline.errors import InputError, NotHereError

if TYPE_CHECKING:
    import pyarrow as pa

READABLE = ".csv, .tsv, .jsonl, each also .gz or .zst, .parquet, .arrow"
TEXT_FORMS = {".csv": "CSV", ".tsv": "TSV", ".jsonl": "JSON Lines", ".ndjson": "JSON Lines"}
FORMS = TEXT_FORMS | {".parquet": "Parquet", ".arrow": "Arrow", ".feather": "Arrow"}
COMPRESSED = {".gz": "gzip", ".zst": "zstd"}

_MAGIC = {
    b"\x1f\x8b": "gzip (.gz)",
    b"\x28\xb5\x2f\xfd": "zstd (.zst)",
    b"PAR1": "Parquet (.parquet)",
    b"ARROW1": "Arrow (.arrow)",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"%PDF": "PDF",
}

Cells = Union["pa.Array", list[Any]]
"""A column of some rows: an Arrow array of the file's type, or a list of Python values of any type."""
Parts = Iterator[dict[str, Cells]]
"""Column name -> cells, in the order of the rows."""


@dataclass(frozen=True)
class File:
    """A file on this machine, and what messages call it: it may have come from elsewhere under a name of its own."""

    path: Path
    name: str


@dataclass(frozen=True)
class Written:
    """How files of text are written.

    Attributes:
        encoding: of files without a byte order mark.
        delimiter: between the cells of a line; empty finds out.
    """

    encoding: str = "utf-8"
    delimiter: str = ""


def form_of(name: str) -> str:
    """The suffix that tells the form, in small letters, without that of the compression; "" where none is known."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSED:
        return suffixes[0] if len(suffixes) == 2 and suffixes[0] in TEXT_FORMS else ""
    return suffixes[-1] if suffixes and suffixes[-1] in FORMS else ""


def compression_of(name: str) -> str:
    """gzip, zstd or ""."""
    return COMPRESSED.get(PurePosixPath(name).suffix.lower(), "")


def expanded(uri: str) -> Path:
    """The path that a person wrote, ~ included."""
    return Path(os.path.expanduser(uri))  # noqa: PTH111 - pathlib's raises for an unknown user


def local_file(uri: str, key: str) -> Path:
    """The path of a local file.

    Raises:
        InputError: no file is there, or its form is unknown.
    """
    path = expanded(uri)
    if path.is_dir():
        raise InputError(f"{key}: {uri} is a directory; give a file ({READABLE})")
    if not path.is_file():
        raise NotHereError(f"{key}: {uri}: no such file; give a file ({READABLE}), relative to the current directory")
    check_file(File(path, uri), key)
    return path


def check_file(file: File, key: str) -> None:
    """Refuse a file that is of no known form or empty.

    Raises:
        InputError: it is.
    """
    if not form_of(file.name):
        shown = PurePosixPath(file.name).suffix or "without a suffix"
        raise InputError(f"{key}: {file.name}: unknown form {shown!r}; allowed: {READABLE}")
    if file.path.stat().st_size == 0:
        raise InputError(f"{key}: {file.name} is empty (0 bytes)")


def other_form(start: bytes) -> str:
    """The form that the first bytes of a file belong to, where they are surely no text; "" otherwise."""
    return next((form for magic, form in _MAGIC.items() if start.startswith(magic)), "")


def require(name: str, found: list[str], columns: dict[str, str], place: str) -> None:
    """Refuse a source without these columns.

    Args:
        name: of the source.
        found: the columns that are there.
        columns: configuration key, or the key and more behind a space -> column.
        place: where they were found, such as `row 3 has`.

    Raises:
        InputError: one is not there.
    """
    for key, column in columns.items():
        if column not in found:
            names = ", ".join(repr(other) for other in found[:20])
            asked = key.partition(" ")[0]
            raise InputError(
                f"{name}: {place} no column {column!r}; found {names or 'none'}; name yours with {asked}=NAME"
            )
