"""Whatever text a person writes comes back from every form, whichever of the readers takes it."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneline.config import DataConfig
from tuneline.errors import InputError
from tuneline.prepare.sources import open_source
from tuneline.tables import delimited, json_lines, stream

TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
"""Any text that UTF-8 can hold, control characters, NUL, quotes and line breaks of every kind included."""
NASTY = st.text(st.sampled_from(list("ab\",;\t|'\\ \r\n\0\ufeff\u2028\x85é😀{}[]:")), max_size=12)
ROWS = st.lists(st.tuples(st.one_of(TEXT, NASTY), st.one_of(TEXT, NASTY)), min_size=1, max_size=12)
FORMS = [
    ".csv",
    ".tsv",
    ".jsonl",
    ".csv.gz",
    ".tsv.zst",
    ".jsonl.gz",
    ".jsonl.zst",
    ".parquet",
    ".arrow",
    ".stream.arrow",
]


def delimited_bytes(rows: list[tuple[str, ...]], delimiter: str = ",", line_end: str = "\n") -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerows(
        [("text", "label"), *rows]
    )
    return out.getvalue().encode()


def encoded(form: str, rows: list[tuple[str, str]]) -> bytes:
    table = pa.table({"text": [text for text, _ in rows], "label": [label for _, label in rows]})
    sink = io.BytesIO()
    if form == ".parquet":
        pq.write_table(table, sink)
    elif form.endswith(".arrow"):
        with (pa.ipc.new_stream if "stream" in form else pa.ipc.new_file)(sink, table.schema) as writer:
            writer.write_table(table)
    elif form.startswith(".jsonl"):
        lines = (json.dumps({"text": text, "label": label}, ensure_ascii=len(text) % 2 == 0) for text, label in rows)
        sink.write("\n".join(lines).encode())
    else:
        sink.write(delimited_bytes(rows, "\t" if form.startswith(".tsv") else ","))
    if form.endswith(".gz"):
        return gzip.compress(sink.getvalue())
    return pa.Codec("zstd").compress(sink.getvalue()).to_pybytes() if form.endswith(".zst") else sink.getvalue()


def read(name: str, content: bytes, **keys: Any) -> list[tuple[str, str | None]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        batches = list(open_source(str(path), "train", DataConfig(train="unused", **keys)).batches)
    return [(row["text"], row["label"]) for batch in batches for row in batch.to_pylist()]


def as_read(rows: list[tuple[str, str]]) -> list[tuple[str, str | None]]:
    return [(text, label.strip() or None) for text, label in rows]


@pytest.mark.parametrize("form", FORMS)
@given(rows=ROWS)
@settings(max_examples=40)
def test_any_text_comes_back_from_every_form(form, rows):
    assert read(f"rows{form}", encoded(form, rows)) == as_read(rows)


@pytest.mark.parametrize("form", [".csv", ".jsonl", ".csv.gz", ".jsonl.zst"])
@given(rows=ROWS, block=st.integers(20, 60))
@settings(max_examples=25)
def test_where_a_block_ends_changes_nothing(form, rows, block):
    before = stream.BLOCK
    stream.BLOCK = block
    try:
        assert read(f"rows{form}", encoded(form, rows)) == as_read(rows)
    finally:
        stream.BLOCK = before


@given(rows=ROWS, delimiter=st.sampled_from(",;\t|"), line_end=st.sampled_from(["\n", "\r\n", "\r"]))
@settings(max_examples=40)
def test_any_delimiter_and_line_end_is_found_out(rows, delimiter, line_end):
    assert read("rows.csv", delimited_bytes(rows, delimiter, line_end)) == as_read(rows)


@given(rows=ROWS, encoding=st.sampled_from(["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "gb18030"]))
@settings(max_examples=40)
def test_any_encoding_is_read_by_its_mark_or_its_name(rows, encoding):
    content = delimited_bytes(rows).decode().encode(encoding)
    marked = encoding in ("utf-8-sig", "utf-16", "utf-32")
    assert read("rows.csv", content, **({} if marked else {"encoding": encoding})) == as_read(rows)


@given(rows=ROWS)
@settings(max_examples=40)
def test_python_s_reader_and_arrow_s_agree(rows):
    """The fast way is only a fast way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "_parse", lambda *arguments: None)
        patch.setattr(json_lines, "_parse", lambda *arguments: None)
        slow = [read(f"rows{form}", encoded(form, rows)) for form in (".csv", ".jsonl")]
    assert slow == [as_read(rows)] * 2


@given(content=st.text(st.sampled_from(list('ab",\r\n ')), max_size=30))
@settings(max_examples=150)
def test_any_csv_is_read_as_python_reads_it_or_refused_where_python_refuses(content):
    data = f"text,label\n{content}".encode()

    def outcome() -> Any:
        try:
            return read("rows.csv", data)
        except InputError as error:
            return str(error).rpartition("rows.csv")[2]

    fast = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "_parse", lambda *arguments: None)
        assert outcome() == fast


@given(
    content=st.lists(
        st.sampled_from([*'{}[]:,"1 \n', '"text"', '"label"', '"a"', "null", '{"text":"a","label":"b"}'])
    ).map("".join)
)
@settings(max_examples=150)
def test_any_json_is_read_as_python_reads_it_or_refused_where_python_refuses(content):
    data = f'{{"text": "a", "label": "b"}}\n{content}'.encode()

    def outcome() -> Any:
        try:
            return read("rows.jsonl", data)
        except InputError as error:
            return str(error).rpartition("rows.jsonl")[2]

    fast = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "_parse", lambda *arguments: None)
        assert outcome() == fast


@given(
    content=st.binary(max_size=200),
    form=st.sampled_from([".csv", ".jsonl", ".parquet", ".arrow", ".csv.gz", ".tsv.zst"]),
)
@settings(max_examples=150)
def test_any_bytes_are_read_or_refused_in_one_line(content, form):
    try:
        read(f"rows{form}", content)
    except InputError as error:
        assert "\n" not in str(error)
        assert "rows" in str(error)


@pytest.mark.parametrize("form", [".parquet", ".arrow", ".stream.arrow"])
def test_a_file_with_any_byte_turned_is_read_or_refused_in_one_line(form):
    """Never a traceback, and never a crash of the process, from a damaged file of numbers that point into it."""
    draw = random.Random(0)
    whole = encoded(form, [(f"text {number} ü", "pos") for number in range(20)])
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        try:
            read(f"rows{form}", bytes(damaged))
        except InputError as error:
            assert "rows" in str(error)
