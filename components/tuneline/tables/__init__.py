"""Rows of local files: CSV, TSV, JSON Lines, Parquet and Arrow, plain or compressed. prepare and serve both read by it.

files: what a file is; stream: bytes to UTF-8; delimited, json_lines, columnar: a form each; cells: what a cell must be.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tuneline.tables.cells import check_text
from tuneline.tables.files import READABLE, File, Parts, Written, form_of, local_file

__all__ = ["READABLE", "File", "Parts", "Written", "column_names", "form_of", "local_file", "read", "texts"]


def read(file: File, columns: dict[str, str], written: Written) -> Parts:
    """The columns of a file, some thousand rows at a time.

    Args:
        file: what local_file gave.
        columns: configuration key, or option of the command -> name of the column that it asks for.
        written: how its text is encoded and its cells parted.

    Raises:
        InputError: not readable, or a column is missing.
    """
    from tuneline.tables import columnar, delimited, json_lines

    forms: dict[str, Any] = {
        ".csv": delimited.read,
        ".tsv": delimited.read,
        ".jsonl": json_lines.read,
        ".ndjson": json_lines.read,
        ".parquet": columnar.read_parquet,
        ".arrow": columnar.read_arrow,
        ".feather": columnar.read_arrow,
    }
    return forms[form_of(file.name)](file, columns, written)


def column_names(file: File, written: Written) -> list[str]:
    """The names of a file's columns, in its order; of JSON Lines the keys of the first row.

    Raises:
        InputError: not readable.
    """
    from tuneline.tables import columnar, delimited, json_lines

    form = form_of(file.name)
    if form in (".csv", ".tsv"):
        return delimited.column_names(file, written)
    return json_lines.column_names(file, written) if form in (".jsonl", ".ndjson") else columnar.column_names(file)


def texts(file: str, column: str) -> Iterator[str]:
    """The texts of a file to predict on, in order; no labels are needed.

    Raises:
        InputError: not readable, no such column, or an empty text.
    """
    found = File(local_file(file, "FILE"), file)
    number = 0
    for part in read(found, {"--column/--pair-column": column}, Written()):
        cells = part[column]
        for value in cells if isinstance(cells, list) else cells.to_pylist():
            number += 1
            yield check_text(file, number, column, value)
