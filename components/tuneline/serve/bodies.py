"""What a request may say: bytes to columns of texts, or one line that tells what is wrong with them.

Two forms: our own, {"texts": [...]} with "pairs" beside it for a model of pairs, and the scoring protocol of `mlflow
models serve`. Nothing that a client sent is repeated in an error but the names of its keys.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

MEDIA_TYPE = "application/json"
_SCORING = ("inputs", "instances", "dataframe_split", "dataframe_records")
_EXAMPLE = '{"texts": ["..."]}'


class RefusedError(Exception):
    """A request that is not answered.

    Args:
        line: what is wrong, for the client.
        status: of HTTP.
    """

    def __init__(self, line: str, status: int = 400) -> None:
        super().__init__(line)
        self.status = status


@dataclass(frozen=True)
class Question:
    """What is asked: texts, and where the model answers pairs the second text of each."""

    texts: list[str]
    pairs: list[str] | None = None


Form = Callable[[dict[str, Any], bool], list[tuple[str, list[Any]]]]
"""A body and whether pairs are needed -> its columns, each with the name by which the client knows it."""


def read(raw: bytes, form: Form, pairs: bool, most_texts: int) -> Question:
    """The texts of a body.

    Args:
        raw: the body.
        form: own or scoring.
        pairs: whether the model answers pairs.
        most_texts: more are refused.

    Raises:
        RefusedError: it is not such a body.
    """
    columns = form(_object(raw), pairs)
    first = columns[0][1]
    if not first:
        _refuse(f"{columns[0][0]}: no text given")
    if len(first) > most_texts:
        raise RefusedError(f"{columns[0][0]}: {len(first)} given; at most {most_texts} a request", 413)
    for name, values in columns:
        if len(values) != len(first):
            _refuse(f"{name}: {len(values)} given for {len(first)} {columns[0][0]}")
        _check_texts(name, values)
    return Question(first, columns[1][1] if pairs else None)


def own(body: dict[str, Any], pairs: bool) -> list[tuple[str, list[Any]]]:
    """{"texts": [...]}, and {"pairs": [...]} for a model of pairs."""
    wanted = ["texts", "pairs"] if pairs else ["texts"]
    for key in body:
        if key == "pairs" and not pairs:
            _refuse("pairs: the model answers single texts")
        if key not in wanted:
            _refuse(f"unknown key {_short(key)}; send {_EXAMPLE}")
    for key in wanted:
        if key not in body:
            _refuse(f"no {key}; " + (f"send {_EXAMPLE}" if key == "texts" else "the model answers pairs of texts"))
    return [(key, _list(key, body[key])) for key in wanted]


def scoring(body: dict[str, Any], pairs: bool) -> list[tuple[str, list[Any]]]:
    """MLflow's protocol: one of inputs, instances, dataframe_split and dataframe_records; params is not read."""
    given = [key for key in body if key != "params"]
    if len(given) != 1 or given[0] not in _SCORING:
        _refuse(f"one key is needed, and no other: {', '.join(_SCORING)}")
    key = given[0]
    value = body[key]
    if key == "dataframe_split":
        return _of_split(value, pairs)
    if isinstance(value, dict) and key != "dataframe_records":
        return _chosen(key, {name: _list(f"{key}.{_short(name)}", column) for name, column in value.items()}, pairs)
    rows = _list(key, value)
    if rows and isinstance(rows[0], dict):
        return _of_records(key, rows, pairs)
    if key == "dataframe_records":
        _check_rows(key, rows, dict, "an object")
    if not pairs:
        return [(key, [row[0] if isinstance(row, list) and len(row) == 1 else row for row in rows])]
    return _of_rows(key, rows, 2)


def _of_split(value: Any, pairs: bool) -> list[tuple[str, list[Any]]]:
    if not isinstance(value, dict) or not {"columns", "data"} <= value.keys() <= {"columns", "data", "index"}:
        _refuse('dataframe_split: an object is needed with the keys "columns" and "data"')
    names, rows = _list("dataframe_split.columns", value["columns"]), _list("dataframe_split.data", value["data"])
    columns = _of_rows("dataframe_split.data", rows, len(names))
    return _chosen("dataframe_split", dict(zip(map(str, names), [cells for _, cells in columns], strict=True)), pairs)


def _of_records(key: str, rows: list[Any], pairs: bool) -> list[tuple[str, list[Any]]]:
    _check_rows(key, rows, dict, "an object")
    names = list(rows[0])
    for number, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            _refuse(f"{key}[{number}]: has other keys than {key}[0]")
    return _chosen(key, {name: [row[name] for row in rows] for name in names}, pairs)


def _of_rows(key: str, rows: list[Any], width: int) -> list[tuple[str, list[Any]]]:
    _check_rows(key, rows, list, f"a list of {width}")
    for number, row in enumerate(rows):
        if len(row) != width:
            _refuse(f"{key}[{number}]: {len(row)} cells given; {width} needed")
    return [(key, [row[place] for row in rows]) for place in range(width)]


def _chosen(key: str, columns: dict[str, list[Any]], pairs: bool) -> list[tuple[str, list[Any]]]:
    """The columns that the model reads: the only one, or `text` and `pair`, or any two in this order."""
    if pairs and {"text", "pair"} <= columns.keys():
        columns = {name: columns[name] for name in ("text", "pair")}
    if len(columns) != (2 if pairs else 1):
        wanted = "two columns, text and pair, are" if pairs else "one column is"
        _refuse(f"{key}: {len(columns)} columns given; {wanted} needed")
    return [(f"{key}.{_short(name)}", cells) for name, cells in columns.items()]


def _object(raw: bytes) -> dict[str, Any]:
    if not raw.strip():
        _refuse(f"the body is empty; send {_EXAMPLE}")
    try:
        body = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        _refuse(f"not UTF-8, at byte {error.start}")
    except json.JSONDecodeError as error:
        _refuse(f"not JSON: {error.msg}, line {error.lineno} column {error.colno}")
    except RecursionError:
        _refuse("not taken: nested too deeply")
    except ValueError:
        _refuse("not taken: a number of too many digits")
    if not isinstance(body, dict):
        _refuse(f"a JSON object is needed, such as {_EXAMPLE}")
    return body


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        _refuse(f"{name}: {_kind(value)} given; a list is needed")
    return value


def _check_rows(key: str, rows: Sequence[Any], kind: type, wanted: str) -> None:
    for number, row in enumerate(rows):
        if not isinstance(row, kind):
            _refuse(f"{key}[{number}]: {_kind(row)} given; {wanted} is needed")


def _check_texts(name: str, values: list[Any]) -> None:
    for number, value in enumerate(values):
        if not isinstance(value, str):
            _refuse(f"{name}[{number}]: {_kind(value)} given; a text is needed")
        if not value or value.isspace():
            _refuse(f"{name}[{number}]: an empty text")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                _refuse(f"{name}[{number}]: half a surrogate pair at character {error.start + 1}; not Unicode")


def _kind(value: Any) -> str:
    """What JSON calls it."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _short(name: str) -> str:
    """A key as it may stand in a line of an error."""
    return json.dumps(name[:40])[1:-1]


def _refuse(line: str) -> NoReturn:
    raise RefusedError(line)
