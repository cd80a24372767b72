"""Parquet and Arrow: the wanted columns, some thousand rows at a time, however large the file's own parts are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tuneline.errors import InputError
from tuneline.tables.files import File, Parts, Written, form_of, require

ROWS = 10_000
BYTES = 16 << 20


def read_parquet(file: File, columns: dict[str, str], written: Written) -> Parts:
    """See tables.read."""
    del written
    import pyarrow.parquet as pq

    wanted = list(dict.fromkeys(columns.values()))
    with _told(file.name, "Parquet"), pq.ParquetFile(file.path, buffer_size=1 << 20) as source:
        require(file.name, source.schema_arrow.names, columns, "it has")
        _once(file.name, source.schema_arrow.names, wanted)
        rows, size = source.metadata.num_rows, _size(source.metadata)
        step = rows_in_bytes(rows, size)
        for batch in source.iter_batches(step, columns=wanted, use_threads=False):
            yield from parts(batch, wanted, source.schema_arrow)


def read_arrow(file: File, columns: dict[str, str], written: Written) -> Parts:
    """See tables.read. Both of Arrow's forms are read: the file with its footer, and the stream that datasets saves."""
    del written
    import pyarrow as pa

    wanted = list(dict.fromkeys(columns.values()))
    with _told(file.name, "Arrow"), pa.memory_map(str(file.path)) as source:
        whole = source.read(6) == b"ARROW1"
        source.seek(0)
        open_ = pa.ipc.open_file if whole else pa.ipc.open_stream
        schema = open_(source).schema
        require(file.name, schema.names, columns, "it has")
        _once(file.name, schema.names, wanted)
        source.seek(0)
        options = pa.ipc.IpcReadOptions(included_fields=[schema.get_field_index(name) for name in wanted])
        reader: Any = open_(source, options=options)
        batches = (reader.get_batch(at) for at in range(reader.num_record_batches)) if whole else reader
        for batch in batches:
            batch.validate(full=True)  # offsets of a foreign file may point anywhere
            yield from parts(batch, wanted, schema)


def column_names(file: File) -> list[str]:
    """See tables.column_names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if form_of(file.name) == ".parquet":
        with _told(file.name, "Parquet"):
            return pq.read_schema(file.path).names
    with _told(file.name, "Arrow"), pa.memory_map(str(file.path)) as source:
        whole = source.read(6) == b"ARROW1"
        source.seek(0)
        return (pa.ipc.open_file if whole else pa.ipc.open_stream)(source).schema.names


def parts(batch: Any, wanted: list[str], schema: Any) -> Parts:
    """Slices of a batch, class numbers of datasets as the names of the classes."""
    names = {column: class_names(schema, column) for column in wanted}
    step = rows_in_bytes(batch.num_rows, batch.nbytes)
    for start in range(0, batch.num_rows, step):
        piece = batch.slice(start, step)
        yield {column: named(piece.column(column), names[column]) for column in wanted}


def rows_in_bytes(rows: int, size: int) -> int:
    """How many rows make a part of bounded size."""
    return max(1, min(ROWS, rows * BYTES // max(size, 1)))


def class_names(schema: Any, column: str) -> list[str]:
    """The names of a ClassLabel's classes, which datasets writes into the schema; empty for another column."""
    try:
        return list(json.loads(schema.metadata[b"huggingface"])["info"]["features"][column]["names"])
    except (KeyError, TypeError, ValueError):
        return []


def named(cells: Any, names: list[str]) -> Any:
    """Class numbers as names; numbers of no class stay."""
    import pyarrow as pa

    if not names or not pa.types.is_integer(cells.type):
        return cells
    return [names[cell] if cell is not None and 0 <= cell < len(names) else cell for cell in cells.to_pylist()]


def _size(metadata: Any) -> int:
    return sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))


def _once(name: str, found: list[str], wanted: list[str]) -> None:
    if twice := [column for column in wanted if found.count(column) > 1]:
        raise InputError(f"{name}: it has the column {twice[0]!r} twice; rename one")


@contextmanager
def _told(name: str, form: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{name}: not a readable {form} file: {error}; make it anew") from None
