"""CSV and TSV as RFC 4180 has them.

Whole records are cut off the stream by counting quotes, and Arrow parses them some megabytes at a time. Where quotes do
not stand as the RFC has them, or Arrow refuses, Python's reader goes on from there: it takes stray quotes as they are,
and tells the row and the line of what cannot be read.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from tuneline.errors import InputError
from tuneline.tables.files import File, Parts, Written, form_of, require
from tuneline.tables.stream import MAX_CELL, blocks

if TYPE_CHECKING:
    import numpy as np

ROWS = 10_000
_QUOTE, _LF, _CR = b'"'[0], b"\n"[0], b"\r"[0]


def read(file: File, columns: dict[str, str], written: Written) -> Parts:
    """See tables.read."""
    stream = blocks(file, written)
    start = next(stream, b"")
    delimiter, header, size = _header(file, start, columns, written)
    wanted = list(dict.fromkeys(columns.values()))
    row, line = 0, _lines(start[:size])
    records = _records(chain([start[size:]], stream), delimiter)
    for block, whole in records:
        if block.strip(b"\r\n"):
            part = _parse(block, delimiter, header, wanted) if whole else None
            if part is None:
                rest = chain([block], (later for later, _ in records))
                yield from _Strict(file.name, header, delimiter, row, line).read(rest, wanted)
                return
            yield part
            row += len(part[wanted[0]])
        line += _lines(block)


def column_names(file: File, written: Written) -> list[str]:
    """See tables.column_names."""
    return _header(file, next(blocks(file, written), b""), {}, written)[1]


def _header(file: File, start: bytes, columns: dict[str, str], written: Written) -> tuple[str, list[str], int]:
    """The delimiter, the header's cells, and how many bytes they take with the blank lines before them."""
    allowed = [_one_character(written.delimiter)] if written.delimiter else list(",;\t|")
    if form_of(file.name) == ".tsv" and not written.delimiter:
        allowed = ["\t", ",", ";", "|"]
    lines = list(islice(io.StringIO(start.decode(), newline=""), 1000))
    found = {delimiter: _first_record(lines, delimiter) for delimiter in allowed}
    fit = [delimiter for delimiter in allowed if columns and set(columns.values()) <= set(found[delimiter][0])]
    delimiter = fit[0] if fit else max(allowed, key=lambda delimiter: len(found[delimiter][0]))
    header, used = found[delimiter]
    hint = "if these are the cells of a row, the file has no header: write one above it"
    require(file.name, header, columns, "its header has", hint)
    if twice := [column for column in columns.values() if header.count(column) > 1]:
        raise InputError(f"{file.name}: its header has the column {twice[0]!r} twice; rename one")
    return delimiter, header, len("".join(lines[:used]).encode())


def _one_character(given: str) -> str:
    delimiter = "\t" if given == "\\t" else given
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise InputError(f"data.delimiter: {given!r} given; must be one character, such as , or ; or \\t")
    return delimiter


def _first_record(lines: list[str], delimiter: str) -> tuple[list[str], int]:
    """Its cells, none where this delimiter gives none, and how many lines it takes."""
    csv.field_size_limit(MAX_CELL)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        return next((cells for cells in reader if cells), []), reader.line_num
    except csv.Error:
        return [], 0


def _records(stream: Iterator[bytes], delimiter: str) -> Iterator[tuple[bytes, bool]]:
    """All of the stream in blocks of whole records; those after the first whose quotes stand amiss are as they come."""
    kept = b""
    for block in stream:
        kept += block
        end = _end(kept, delimiter)
        if end is None or (end == 0 and len(kept) > MAX_CELL):
            yield from ((part, False) for part in chain([kept], stream))
            return
        if end:
            yield kept[:end], True
            kept = kept[end:]
    if kept:
        yield kept, _end(kept + b"\n", delimiter) == len(kept) + 1


def _end(data: bytes, delimiter: str) -> int | None:
    """Where the last whole record ends; None where a quote stands elsewhere than around a cell or before another."""
    import numpy as np

    if b'"' not in data:
        return data.rfind(b"\n") + 1
    characters = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(characters == _QUOTE)
    opening, closing = quotes[0::2], quotes[1::2]
    before = characters[opening[opening > 0] - 1]
    after = characters[closing[closing < len(data) - 1] + 1]
    if not (_borders(before, delimiter) and _borders(after, delimiter)):
        return None
    line_ends = np.flatnonzero(characters == _LF)
    outside = line_ends[np.searchsorted(quotes, line_ends) % 2 == 0]
    return int(outside[-1]) + 1 if len(outside) else 0


def _borders(characters: np.ndarray, delimiter: str) -> bool:
    import numpy as np

    return bool(np.isin(characters, [_QUOTE, _LF, _CR, delimiter.encode()[-1]]).all())


def _parse(records: bytes, delimiter: str, header: list[str], wanted: list[str]) -> dict[str, Any] | None:
    """The columns of a block as Arrow reads them; None where it cannot."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    if not delimiter.isascii():
        return None
    names = [name if name in wanted else str(number) for number, name in enumerate(header)]
    if len(set(names)) < len(names):  # a column of the file has a number for its name
        return None
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(records),
            arrow_csv.ReadOptions(use_threads=False, column_names=names, block_size=len(records) + 1),
            arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            arrow_csv.ConvertOptions(
                include_columns=wanted, column_types=dict.fromkeys(wanted, pa.large_string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowException:
        return None
    return {name: table[name].combine_chunks() for name in wanted}


def _lines(data: bytes) -> int:
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


class _Strict:
    """Python's reader from a given row (of those before) and line on."""

    def __init__(self, name: str, header: list[str], delimiter: str, row: int, line: int) -> None:
        self.name, self.header, self.delimiter, self.row, self.line = name, header, delimiter, row, line

    def read(self, stream: Iterable[bytes], wanted: list[str]) -> Parts:
        """The wanted columns, ten thousand rows at a time."""
        rows = self._rows(stream)
        places = [self.header.index(name) for name in wanted]
        while part := list(islice(rows, ROWS)):
            yield {name: [cells[place] for cells in part] for name, place in zip(wanted, places, strict=True)}

    def _rows(self, stream: Iterable[bytes]) -> Iterator[list[str]]:
        csv.field_size_limit(MAX_CELL)
        reader = csv.reader(_split_lines(self.name, stream), delimiter=self.delimiter, strict=True)
        try:
            for cells in reader:
                if not cells:
                    continue
                self.row += 1
                if len(cells) != len(self.header):
                    raise InputError(
                        f"{self.name}: row {self.row} (line {self.line + reader.line_num}) has {len(cells)} cells, the "
                        f"header has {len(self.header)}; quote texts that hold {self.delimiter!r} or line breaks"
                    )
                yield cells
        except csv.Error as error:
            raise InputError(
                f"{self.name}: row {self.row + 1} (line {self.line + reader.line_num}): {error}; is a quote left open, "
                f"or not doubled inside of quotes?"
            ) from None


def _split_lines(name: str, stream: Iterable[bytes]) -> Iterator[str]:
    """Lines with their ends as written."""
    rest = ""
    for block in stream:
        if len(rest) > MAX_CELL:
            raise InputError(f"{name}: a line is longer than {MAX_CELL >> 20} MiB; is this a table of texts?")
        lines = list(io.StringIO(rest + block.decode(), newline=""))
        rest = lines.pop() if lines and not lines[-1].endswith("\n") else ""
        yield from lines
    if rest:
        yield from io.StringIO(rest, newline="")
