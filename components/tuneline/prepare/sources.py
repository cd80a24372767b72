"""Reads labelled text from where a URI says it is, a batch at a time, and refuses what is no labelled text.

Empty texts and missing labels pass: what becomes of them is the audit's policy.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuneline.artifacts import SLICE, sha256_file
from tuneline.config import DataConfig
from tuneline.errors import InputError, NotHereError
from tuneline.prepare import hub, sample
from tuneline.prepare.layout import Layout, check_saved, lay_out, table
from tuneline.s3 import fetch, listing
from tuneline.tables import READABLE, File, Parts, Written, local_file, read
from tuneline.tables.cells import Place, labels, moments, texts
from tuneline.tables.columnar import BYTES, ROWS, rows_in_bytes
from tuneline.tables.files import Cells, check_file, expanded, require
from tuneline.tables.stream import MAX_CELL, blocks

if TYPE_CHECKING:
    import pyarrow as pa


Tables = Generator[tuple[str, Parts], None, None]
"""Of each file its name and its rows."""
Columns = dict[str, str]
"""Configuration key -> the column that it names; a key of several columns has each column's name behind it."""
VALUE = 80
"""Characters of a value by which rows are parted into slices."""


@dataclass(frozen=True)
class Source:
    """Rows of one split, in the source's order.

    Attributes:
        uri: where they are.
        version: a hash of the local files, the hub's commit, what S3 lists; "" where nothing tells one from another.
        batches: of at most some 10,000 rows or 16 MB, read as they are asked for: text (large_string, nulls are empty),
            label (large_string, null where there is none), and where configured pair, group and slice.NAME
            (large_string) and time (timestamp[us, UTC]). InputError where a row cannot be read, or there is none.
    """

    uri: str
    version: str
    batches: Iterator[pa.RecordBatch]


@dataclass(frozen=True)
class _Folder:
    """A folder on this machine, and what messages call it."""

    path: Path
    shown: str

    def file(self, name: str) -> File:
        return File(self.path / name, f"{self.shown}/{name}" if self.shown else name)


def open_source(uri: str, split: str, data: DataConfig) -> Source:
    """Open one split.

    Args:
        uri: as data.train.
        split: train, validation or test: what a hub data set, a saved one or a sample gives.
        data: columns, encoding, delimiter, names of labels.

    Raises:
        InputError: nothing is there, or not what can be read.
    """
    columns = _columns(data, split)
    if uri.startswith("sample:"):
        version, tables = sample.fingerprint(uri), _table(uri, _sample(uri, split, columns))
    elif uri.startswith("hf://"):
        opened = hub.open_split(uri, split, columns)
        version, columns, tables = opened.revision, opened.columns, _table(uri, opened.parts)
    elif uri.startswith("s3://"):
        found = listing.find(uri, f"data.{split}")
        version, tables = found.version, _fetched(found, uri, split, data, columns)
    else:
        folder, layout = _local(uri, split)
        version, tables = _content(folder, layout), _tables(folder, layout, uri, data, columns)
    return Source(uri, version, _batches(uri, tables, columns, data))


def fingerprint(uri: str, key: str, data: DataConfig) -> str:
    """What pins a source: the content of local files, what S3 lists, the hub's commit, or "" for what moves unseen.

    Args:
        uri: as data.train.
        key: the configuration key that names it, such as data.train.
        data: the configuration.

    Raises:
        InputError: nothing is there.
    """
    split = key.removeprefix("data.")
    if uri.startswith("sample:"):
        return sample.fingerprint(uri)
    if uri.startswith("hf://"):
        return hub.resolve(hub.parse(uri, split, _columns(data, split)))
    if uri.startswith("s3://"):
        return listing.find(uri, key).version
    return _content(*_local(uri, split))


def look(uri: str, split: str) -> None:
    """Find out early what is surely wrong; of what lies elsewhere no more than the address is looked at.

    Args:
        uri: as data.train.
        split: train, validation or test.

    Raises:
        InputError: nothing is there.
    """
    if uri.startswith("sample:"):
        sample.fingerprint(uri)
    elif uri.startswith("hf://"):
        hub.parse(uri, split, {})
    elif not uri.startswith("s3://"):
        _local(uri, split)


def slices(data: DataConfig, split: str) -> list[str]:
    """The columns that a source is asked for because the test rows are parted by them."""
    gives_test = split == "test" or (split == "train" and not data.test)
    return data.slice_columns if gives_test else []


def _columns(data: DataConfig, split: str) -> Columns:
    keys = ("text_column", "label_column", "pair_column", "group_column", "time_column")
    named = {f"data.{key}": name for key in keys if (name := getattr(data, key))}
    return named | {f"data.slice_columns {name}": name for name in slices(data, split)}


def _local(uri: str, split: str) -> tuple[_Folder, Layout]:
    key, path = f"data.{split}", expanded(uri)
    if path.is_dir():
        folder, layout = _Folder(path, uri.rstrip("/")), lay_out(_names_below(path), uri, split)
    elif not path.exists() and glob.has_magic(uri):
        root = str(Path(uri[: min(uri.index(sign) for sign in "*?[" if sign in uri)] + "x").parent)
        folder = _Folder(expanded(root), "" if root == "." else root)
        pattern = str(path.relative_to(folder.path))
        found = sorted(glob.glob(pattern, root_dir=folder.path, recursive=True))  # noqa: PTH207 - ** as a shell has it
        names = [name.replace(os.sep, "/") for name in found if (folder.path / name).is_file()]
        if not names:
            raise NotHereError(f"{key}: {uri}: no file matches; give files ({READABLE})")
        layout = table(names, uri, split)
    else:
        local_file(uri, key)
        folder, layout = _Folder(path.parent, uri.rpartition("/")[0]), Layout("table", [path.name])
    _check_files(folder, layout, split)
    return folder, layout


def _check_files(folder: _Folder, layout: Layout, split: str) -> None:
    for name in layout.files if layout.kind == "table" else ():
        check_file(folder.file(name), f"data.{split}")


def _names_below(folder: Path) -> list[str]:
    found: list[str] = []
    for at, below, names in os.walk(folder, followlinks=True):
        here = Path(at).relative_to(folder)
        above = {os.path.realpath(folder / parent) for parent in here.parents} if here.parts else set()
        if os.path.realpath(at) in above:  # a link to a folder that it is in
            below.clear()
            continue
        found += [(here / name).as_posix() for name in names]
    return found


def _content(folder: _Folder, layout: Layout) -> str:
    """A file's SHA-256, or one over the names and SHA-256 of several."""
    hashes = {name: sha256_file(folder.path / name) for name in layout.files}
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    return hashlib.sha256("".join(f"{name}\0{digest}\n" for name, digest in hashes.items()).encode()).hexdigest()


def _written(data: DataConfig) -> Written:
    return Written(data.encoding, data.delimiter, "data.encoding")


def _table(name: str, parts: Parts) -> Tables:
    yield name, parts


def _fetched(found: listing.Listing, uri: str, split: str, data: DataConfig, columns: Columns) -> Tables:
    """As _tables, of files that lie here for as long as they are read."""
    layout = lay_out(found.names, uri, split) if found.is_folder else table(found.names, uri, split)
    with fetch.downloaded(found, layout.files) as path:
        folder = _Folder(path, found.shown)
        _check_files(folder, layout, split)
        yield from _tables(folder, layout, uri, data, columns)


def _tables(folder: _Folder, layout: Layout, uri: str, data: DataConfig, columns: Columns) -> Tables:
    """Each file's name and rows; the rows of a class's texts are those of one table."""
    if layout.kind == "classes":
        yield uri, _classes(folder, layout, uri, data, columns)
        return
    names = check_saved(folder.path, layout, uri) if layout.kind == "saved" else layout.files
    for name in names:
        file = folder.file(name)
        yield file.name, read(file, columns, _written(data))


def _classes(folder: _Folder, layout: Layout, uri: str, data: DataConfig, columns: Columns) -> Parts:
    if others := [key for key in columns if key not in ("data.text_column", "data.label_column")]:
        key, name = others[0].partition(" ")[0], columns[others[0]]
        raise InputError(f"{key}: {name!r} given; {uri} has folders of texts, no columns")
    found: list[str] = []
    names: list[str] = []
    size = 0
    for name in layout.files:
        found.append(_whole(folder.file(name), data))
        names.append(name.partition("/")[0])
        size += len(found[-1])
        if len(found) == ROWS or size > BYTES:
            yield {data.text_column: found, data.label_column: names}
            found, names, size = [], [], 0
    if found:
        yield {data.text_column: found, data.label_column: names}


def _whole(file: File, data: DataConfig) -> str:
    """A file that is one text."""
    parts: list[bytes] = []
    for block in blocks(file, _written(data)):
        parts.append(block)
        if sum(map(len, parts)) > MAX_CELL:
            raise InputError(f"{file.name}: more than {MAX_CELL >> 20} MiB; a file in a class's folder is one text")
    return b"".join(parts).decode()


def _sample(uri: str, split: str, columns: Columns) -> Parts:
    rows = list(sample.rows(uri, split))
    require(uri, list(rows[0]), columns, "it has")
    yield {name: [row[name] for row in rows] for name in columns.values()}


def _batches(uri: str, tables: Tables, columns: Columns, data: DataConfig) -> Iterator[pa.RecordBatch]:
    rows = 0
    with closing(tables):  # which may hold a temporary folder
        for name, parts in tables:
            first = 1
            for part in parts:
                batch = _batch(name, first, part, columns, data)
                first += batch.num_rows
                yield from _slices(batch)
            rows += first - 1
    if not rows:
        raise InputError(f"{uri}: holds no rows")


def _batch(name: str, first: int, part: dict[str, Cells], columns: Columns, data: DataConfig) -> pa.RecordBatch:
    import pyarrow as pa
    import pyarrow.compute as pc

    arrays = {}
    for key, column in columns.items():
        place, cells = Place(name, first, column), part[column]
        what = key.removeprefix("data.").removesuffix("_column")
        if what in ("text", "pair"):
            arrays[what] = texts(place, cells)
        elif what == "time":
            arrays[what] = moments(place, cells)
        elif what.startswith("slice_columns "):
            found = pc.fill_null(labels(place, cells, {}), "")
            arrays[f"{SLICE}{column}"] = pc.call_function("utf8_slice_codeunits", [found], pc.SliceOptions(0, VALUE))
        else:
            arrays[what] = labels(place, cells, data.label_map if what == "label" else {})
    return pa.RecordBatch.from_pydict(arrays)


def _slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    step = rows_in_bytes(batch.num_rows, batch.nbytes)
    for start in range(0, batch.num_rows, step):
        yield batch.slice(start, step)
