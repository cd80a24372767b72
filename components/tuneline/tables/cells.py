"""What a cell must be. A column of an Arrow type is checked whole; what is wrong is told by its row."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from tuneline.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from tuneline.tables.files import Cells


_DATE_LIKE = re.compile(r"[0-9 :./,+TWZ-]{1,40}")  # so that a message quotes dates, and no text of a person


@dataclass(frozen=True)
class Place:
    """Where cells stand: the source, the number of their first row from 1, and the column."""

    source: str
    first: int
    column: str

    def refuse(self, index: int, message: str) -> NoReturn:
        """Raise InputError about the cell at an index."""
        raise InputError(f"{self.source}: row {self.first + index}, column {self.column!r}: {message}")


def check_text(source: str, number: int, column: str, value: Any) -> str:
    """The value of a cell, which must be a text.

    Raises:
        InputError: it is none, or empty, or cannot be written as UTF-8.
    """
    place = Place(source, number, column)
    if not text(place, 0, value).strip():
        place.refuse(0, "empty text; remove the row or fill it in")
    return value


def text(place: Place, index: int, value: Any) -> str:
    """A text, which may be empty; a null is an empty one.

    Raises:
        InputError: it is none, or cannot be written as UTF-8.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        place.refuse(index, f"{type(value).__name__} found; a text is needed")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        at = error.start + 1
        place.refuse(index, f"half a surrogate pair at character {at}, which is no text; remove it")
    return value


def label(place: Place, index: int, value: Any) -> str | None:
    """A label without blanks around it; whole numbers in their decimal form; None where there is none.

    Raises:
        InputError: neither a text nor a number.
    """
    if isinstance(value, float):
        value = int(value) if value.is_integer() else None if math.isnan(value) else str(value)
    if value is not None and not isinstance(value, bool | int | str):
        place.refuse(index, f"no label but {type(value).__name__}; a text or a number is needed")
    return text(place, index, None if value is None else str(value)).strip() or None


def moment(place: Place, index: int, value: Any) -> datetime:
    """A date or time written in ISO 8601, in UTC where it names no zone.

    Raises:
        InputError: it is none.
    """
    try:
        found = datetime.fromisoformat(value.strip())
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (AttributeError, TypeError, ValueError, OverflowError):
        shown = "nothing" if value is None or value == "" else type(value).__name__
        if isinstance(value, str) and _DATE_LIKE.fullmatch(value):
            shown = repr(value)
        place.refuse(index, f"{shown} found; an ISO 8601 date or time is needed, such as 2026-01-31")


def texts(place: Place, cells: Cells) -> pa.Array:
    """large_string; nulls become empty texts.

    Raises:
        InputError: a cell is no text, or not UTF-8.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(cells, list):
        return pa.array([text(place, index, value) for index, value in enumerate(cells)], pa.large_string())
    if not _is_text(cells.type):
        _refuse_values(place, cells, "a text")
        return pa.array([""] * len(cells), pa.large_string())
    return pc.fill_null(_checked(place, cells), "")


def labels(place: Place, cells: Cells, new_names: Mapping[str, str]) -> pa.Array:
    """large_string; null where there is no label.

    Args:
        place: where they stand.
        cells: texts or numbers.
        new_names: label as written -> its name; others stay.

    Raises:
        InputError: a cell is neither, or not UTF-8.
    """
    import pyarrow as pa

    def name_of(index: int, value: Any) -> str | None:
        found = label(place, index, value)
        return found if found is None else new_names.get(found, found) or None

    if isinstance(cells, list):
        return pa.array([name_of(index, value) for index, value in enumerate(cells)], pa.large_string())
    if not _is_label(cells.type):
        _refuse_values(place, cells, "a text or a number")
        return pa.nulls(len(cells), pa.large_string())
    return _each_once(_checked(place, cells) if _is_text(cells.type) else cells, name_of)


def moments(place: Place, cells: Cells) -> pa.Array:
    """timestamp[us, UTC].

    Raises:
        InputError: a cell is neither a date nor a time, or nothing.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = pa.timestamp("us", "UTC")
    values = cells
    if not isinstance(cells, list):
        if cells.null_count:
            moment(place, pc.index(cells.is_null(), True).as_py(), None)
        if pa.types.is_timestamp(cells.type) or pa.types.is_date(cells.type):
            found = cells.cast(pa.timestamp("us", getattr(cells.type, "tz", None)), safe=False).cast(kind)
            if (index := _beyond(found)) >= 0:
                place.refuse(index, "a time outside the years 1 to 9999 found")
            return found
        if not _is_text(cells.type):
            _refuse_values(place, cells, "an ISO 8601 date or time")
        written = _checked(place, cells)
        for type_ in (pa.timestamp("us"), kind):
            try:
                found = written.cast(type_).cast(kind)
            except pa.ArrowInvalid:
                continue
            if _beyond(found) < 0:
                return found
        values = written.to_pylist()
    return pa.array([moment(place, index, value) for index, value in enumerate(values)], kind)


def _beyond(times: pa.Array) -> int:
    """Index of the first time that Python's datetime has no room for; -1 where there is none."""
    import numpy as np

    values = times.cast("int64").to_numpy()
    first, last = (np.datetime64(limit, "us").astype(np.int64) for limit in (datetime.min, datetime.max))
    found = np.flatnonzero((values < first) | (values > last))
    return int(found[0]) if len(found) else -1


def _each_once(cells: pa.Array, name_of: Callable[[int, Any], str | None]) -> pa.Array:
    """Every label named; each value once, with the index of its first row, because labels are few."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_float16(cells.type):  # Arrow has no dictionary of these
        cells = cells.cast(pa.float32())
    coded = cells.dictionary_encode("encode")
    firsts = np.unique(coded.indices.to_numpy(), return_index=True)[1]
    values = coded.dictionary.to_pylist()
    named = [name_of(int(index), value) for index, value in zip(firsts, values, strict=True)]
    return pa.array(named, pa.large_string()).take(coded.indices)


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_label(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return _is_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _refuse_values(place: Place, cells: pa.Array, needed: str) -> None:
    """Refuse a column of another type, unless it is all nulls."""
    import pyarrow.compute as pc

    index = pc.index(cells.is_valid(), True).as_py()
    if index >= 0:
        place.refuse(index, f"{cells.type} found; {needed} is needed")


def _checked(place: Place, cells: pa.Array) -> pa.Array:
    """Texts as large_string, all of them UTF-8."""
    import pyarrow as pa

    found = cells.cast(pa.large_string())
    try:
        found.validate(full=True)
    except pa.ArrowInvalid:
        for index, cell in enumerate(found.cast(pa.large_binary()).to_pylist()):
            try:
                (cell or b"").decode()
            except UnicodeDecodeError as error:
                place.refuse(index, f"its byte {error.start + 1} is not UTF-8; write the file anew")
        raise
    return found
