"""JSON Lines: Arrow parses whole lines, some megabytes at a time; Python's reader takes the blocks that it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tuneline.errors import InputError
from tuneline.tables.files import File, Parts, Written, require
from tuneline.tables.stream import MAX_CELL, blocks

ROWS = 10_000
_BLANK = re.compile(rb"^[ \t\r\f\v]*(?:\n|\Z(?<!\n))", re.MULTILINE)


def read(file: File, columns: dict[str, str], written: Written) -> Parts:
    """See tables.read."""
    wanted = list(dict.fromkeys(columns.values()))
    row = line = 0
    for block in _whole_lines(file.name, blocks(file, written)):
        count = _rows(block)
        part = _parse(block, count, wanted)
        if part is not None:
            yield part
        else:
            yield from _strict(file.name, block.split(b"\n"), columns, wanted, row, line)
        row, line = row + count, line + block.count(b"\n")


def column_names(file: File, written: Written) -> list[str]:
    """See tables.column_names."""
    for line, text in enumerate(next(_whole_lines(file.name, blocks(file, written)), b"").split(b"\n"), start=1):
        if text.strip():
            return list(_object(file.name, line, text))
    return []


def _whole_lines(name: str, stream: Iterator[bytes]) -> Iterator[bytes]:
    kept: list[bytes] = []
    for block in stream:
        end = block.rfind(b"\n") + 1
        if not end:
            kept.append(block)
            if sum(map(len, kept)) > MAX_CELL:
                raise InputError(f"{name}: a line is longer than {MAX_CELL >> 20} MiB; JSON Lines has an object a line")
            continue
        yield b"".join([*kept, block[:end]])
        kept = [block[end:]]
    if rest := b"".join(kept):
        yield rest


def _rows(block: bytes) -> int:
    """Lines that are not blank."""
    blank = len(_BLANK.findall(block))
    return block.count(b"\n") + (not block.endswith(b"\n")) - blank


def _parse(block: bytes, count: int, wanted: list[str]) -> dict[str, Any] | None:
    """The columns of a block as Arrow reads them; None where it cannot, or where it may have read other than JSON.

    Rows other than lines are objects that share a line or span some; a null may be a key that is not there.
    """
    import pyarrow as pa
    from pyarrow import json as arrow_json

    schema = _schema(block, wanted)
    if schema is None:
        return None
    try:
        table = arrow_json.read_json(
            pa.BufferReader(block),
            arrow_json.ReadOptions(use_threads=False, block_size=len(block) + 1),
            arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowException:
        return None
    if table.num_rows != count or any(column.null_count for column in table.columns):
        return None
    return {name: table[name].combine_chunks() for name in wanted}


def _schema(block: bytes, wanted: list[str]) -> Any:
    """What the first line says of the columns' types: texts and whole numbers; None where it has others."""
    import pyarrow as pa

    types = {str: pa.large_string(), int: pa.int64()}
    try:
        first = json.loads(block.lstrip().partition(b"\n")[0])
        return pa.schema([(name, types[type(first[name])]) for name in wanted])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _strict(name: str, lines: list[bytes], columns: dict[str, str], wanted: list[str], row: int, line: int) -> Parts:
    part: dict[str, list[Any]] = {column: [] for column in wanted}
    for number, text in enumerate(lines, start=line + 1):
        if not text or text.isspace():
            continue
        row += 1
        found = _object(name, number, text)
        require(name, list(found), columns, f"row {row} has")
        for column in wanted:
            part[column].append(found[column])
        if len(part[wanted[0]]) == ROWS:
            yield part
            part = {column: [] for column in wanted}
    if part[wanted[0]]:
        yield part


def _object(name: str, number: int, text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: line {number}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{name}: line {number}: {type(found).__name__} found; a JSON object is needed")
    return found
