"""Hub data sets: hf://owner/name[:config][@revision][?split=NAME&text=COLUMN&label=COLUMN], through datasets."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from tuneline.errors import InputError, how_to_install
from tuneline.tables import READABLE, Parts
from tuneline.tables.columnar import ROWS, named
from tuneline.tables.files import require

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Address:
    """What a URI asks for.

    Attributes:
        uri: as written.
        name: owner/name.
        config: one of the data set's configurations; "" for the only one.
        revision: a branch, tag or commit; "" for the newest.
        key: the configuration key that holds the URI.
        split: which split, as datasets spells it, such as train[:10%].
        columns: configuration key -> column.
    """

    uri: str
    name: str
    config: str
    revision: str
    key: str
    split: str
    columns: dict[str, str]


@dataclass(frozen=True)
class Opened:
    """A hub data set's split: its commit ("" where it is not known), its columns by key, its rows."""

    revision: str
    columns: dict[str, str]
    parts: Parts


def parse(uri: str, split: str, columns: dict[str, str]) -> Address:
    """Take a URI apart; what its query names goes before the configuration's split and columns.

    Raises:
        InputError: it names no data set.
    """
    address, _, query = uri.removeprefix("hf://").partition("?")
    address, _, revision = address.partition("@")
    name, _, config = address.partition(":")
    if not name:
        raise InputError(f"data.{split}: {uri} names no data set; write hf://owner/name")
    asked = dict(parse_qsl(query, strict_parsing=False))
    named_here = {f"data.{what}_column": asked[what] for what in ("text", "label") if what in asked}
    return Address(uri, name, config, revision, f"data.{split}", asked.get("split", split), columns | named_here)


def resolve(address: Address) -> str:
    """The commit that the hub has under the address now; "" where it cannot be asked or the data set is a folder."""
    if _COMMIT.fullmatch(address.revision):
        return address.revision
    if Path(address.name).is_dir():
        return ""
    try:
        from huggingface_hub import HfApi

        return HfApi().dataset_info(address.name, revision=address.revision or None, timeout=10).sha or ""
    except Exception:  # a dozen types, all of them "not to be had"; loading will tell
        return ""


def open_split(uri: str, split: str, columns: dict[str, str]) -> Opened:
    """Load one split, at one commit.

    Raises:
        InputError: datasets is not installed, the data not to be had, or a column is missing.
    """
    address = parse(uri, split, columns)
    commit = resolve(address)
    data = _load(replace(address, revision=commit or address.revision), split)
    require(uri, data.column_names, address.columns, "it has")
    return Opened(commit, address.columns, _parts(data, address.columns))


def _load(address: Address, split: str) -> Any:
    try:
        from datasets import load_dataset
    except ImportError:
        raise InputError(f"{address.key}: {address.uri}: hub data needs {how_to_install('hub')}") from None
    try:
        return load_dataset(
            address.name, address.config or None, split=address.split, revision=address.revision or None
        )
    except Exception as error:  # a dozen types, all of them "not to be had"
        raise InputError(
            f"{address.key}: {address.uri}: not to be had from the hub ({type(error).__name__}); point it at a local "
            f"file: {address.key}=PATH ({READABLE})"
            + ("" if split == "train" else f", or {address.key}= to split it off the training data")
        ) from None


def _parts(data: Any, columns: dict[str, str]) -> Parts:
    wanted = list(dict.fromkeys(columns.values()))
    names = {column: list(getattr(data.features[column], "names", None) or []) for column in wanted}
    for part in data.select_columns(wanted).with_format("arrow").iter(ROWS):
        yield {column: named(part[column].combine_chunks(), names[column]) for column in wanted}
