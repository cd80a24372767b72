"""Reads labelled text from where a URI says it is, and refuses rows that no classifier can learn from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from tuneline.errors import InputError
from tuneline.prepare import sample
from tuneline.tables import READABLE, check_text, file_rows, local_file, require, require_utf8


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
        rows = file_rows(local_file(uri, f"data.{split}"), (text_column, label_column))
    return _check(uri, rows, text_column, label_column)


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
        require(uri, list(row), (text_column, label_column), f"row {number} has")
        texts.append(check_text(uri, number, text_column, row[text_column]))
        labels.append(_label(uri, number, label_column, row[label_column]))
    if not texts:
        raise InputError(f"{uri}: holds no rows")
    return Source(uri, texts, labels)


def _label(uri: str, number: int, column: str, value: Any) -> str:
    if isinstance(value, float):
        value = int(value) if value.is_integer() else "" if math.isnan(value) else str(value)
    if isinstance(value, bool | int | str) and str(value).strip():
        require_utf8(uri, number, column, str(value))
        return str(value).strip()
    raise InputError(f"{uri}: row {number}, column {column!r}: no label; remove the row or label it")


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
    require(uri, data.column_names, (text, label), "it has")
    names: list[str] = getattr(data.features[label], "names", None) or []
    for row in data:
        value = row[label]
        if isinstance(value, int) and 0 <= value < len(names):
            value = names[value]
        yield {text_column: row[text], label_column: value}
