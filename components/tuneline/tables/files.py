"""What a file of rows is: its form by its name, and what its first bytes say against that."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
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

SHOWN = 20
"""Characters of a column's name that are always shown, and columns that are."""
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,59}")

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
        encoding_key: the configuration key by which a person names the encoding; empty where a command has none.
    """

    encoding: str = "utf-8"
    delimiter: str = ""
    encoding_key: str = ""


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


def shown_column(name: str) -> str:
    """A column's name for a message; what is no plain one may be somebody's text, and is cut short."""
    return repr(name if len(name) <= SHOWN or _PLAIN_NAME.fullmatch(name) else f"{name[:SHOWN]}…")


def shown_columns(names: Sequence[str], are_names: bool = False) -> str:
    """Columns for a message.

    Args:
        names: the cells of a header.
        are_names: whether they are surely no cells of a row; else those that read like one are not told in full.
    """
    most = SHOWN if are_names or not any(map(_like_text, names)) else 1
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(map(shown_column, names[:most])) or "none") + more


def _like_text(name: str) -> bool:
    """Whether it is long, or what stood behind the comma of a sentence."""
    return not _PLAIN_NAME.fullmatch(name.strip()) and (len(name) > 2 * SHOWN or name.startswith(" "))


def require(name: str, found: list[str], columns: dict[str, str], place: str, hint: str = "") -> None:
    """Refuse a source without these columns.

    Args:
        name: of the source.
        found: the columns that are there.
        columns: configuration key or command's option, as _asked reads it -> column.
        place: where they were found, such as `row 3 has`.
        hint: what else may be the matter where none of the columns is there.

    Raises:
        InputError: one is not there.
    """
    some = not set(found).isdisjoint(columns.values())
    for key, column in columns.items():
        if column not in found:
            more = f"; {hint}" if hint and found and not some else ""
            raise InputError(
                f"{name}: {place} no column {column!r}; found {shown_columns(found, some)}; name yours with "
                f"{_asked(key)}{more}"
            )


def _asked(key: str) -> str:
    """How a person names a column by this key or option; one of several columns has its own name behind a space."""
    asked, _, several = key.partition(" ")
    if asked.startswith("--"):
        return f"{asked} NAME"
    return f"{asked}=[NAME]" if several else f"{asked}=NAME"
