"""What people really hand in: each file gives one line that names the place, or the right rows; none a traceback."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tuneline.config import DataConfig
from tuneline.errors import InputError
from tuneline.prepare.sources import open_source

GOOD = b"text,label\ngood,pos\nbad,neg\n"
ROWS = [("good", "pos"), ("bad", "neg")]


def parquet(**columns: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def arrow(**columns: object) -> bytes:
    sink, table = io.BytesIO(), pa.table(columns)
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    return sink.getvalue()


def workbook() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return sink.getvalue()


def zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data).to_pybytes()


def json_rows(*rows: object) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def invalid_utf8() -> pa.Array:
    return pa.array([b"good", b"b\xe9d"], pa.binary()).view(pa.string())


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "an empty file": ("rows.csv", b"", "rows.csv is empty (0 bytes)"),
    "a file of blank lines": ("rows.csv", b"\n\r\n\n", "its header has no column 'text'; found none"),
    "a byte order mark and no more": ("rows.csv", b"\xef\xbb\xbf", "its header has no column 'text'; found none"),
    "a header alone": ("rows.csv", b"text,label\n", "rows.csv: holds no rows"),
    "no header": ("rows.csv", b"good,pos\nbad,neg\n", "its header has no column 'text'; found 'good', 'pos'"),
    "another case of a column": (
        "rows.csv",
        b"Text,Label\na,b\n",
        "no column 'text'; found 'Text', 'Label'; name yours",
    ),
    "blanks around a column": ("rows.csv", b"text, label\na,b\n", "no column 'label'; found 'text', ' label'"),
    "a column twice": ("rows.csv", b"text,label,text\na,b,c\n", "its header has the column 'text' twice; rename one"),
    "too many cells": ("rows.csv", GOOD + b"a, b, and c,pos\n", "row 3 (line 4) has 4 cells, the header has 2; quote"),
    "too few cells": ("rows.csv", GOOD + b"a\n", "row 3 (line 4) has 1 cells, the header has 2"),
    "a cut last line": ("rows.csv", GOOD + b"go", "row 3 (line 4) has 1 cells, the header has 2"),
    "a quote left open": ("rows.csv", GOOD + b'"a,pos\nb,neg\n', "row 3 (line 5): unexpected end of data; is a quote"),
    "text after a quote": (
        "rows.csv",
        GOOD + b'"a" b,pos\n',
        "row 3 (line 4): ',' expected after '\"'; is a quote left",
    ),
    "a quote not doubled": ("rows.csv", GOOD + b'"say "hi" now",pos\n', "row 3 (line 4): ',' expected after '\"'"),
    "Latin-1": ("rows.csv", GOOD + b"caf\xe9,pos\n", "line 4: byte 0xe9 is not UTF-8; convert the file, for instance"),
    "a cut character": ("rows.csv", GOOD + b"a,\xc3", "line 4: byte 0xc3 is not UTF-8"),
    "UTF-16 without a mark": (
        "rows.csv",
        GOOD.decode().encode("utf-16-le"),
        "line 1: NUL bytes: not a file of text, or",
    ),
    "half of UTF-16": ("rows.csv", GOOD.decode().encode("utf-16")[:-1], "is not utf-16-le; convert the file"),
    "random bytes": ("rows.csv", bytes(range(128, 256)), "line 1: byte 0x80 is not UTF-8"),
    "a workbook": (
        "rows.csv",
        workbook(),
        "is a ZIP archive or an Excel workbook by its first bytes, not what its name",
    ),
    "gzip under another name": ("rows.csv", gzip.compress(GOOD), "is gzip (.gz) by its first bytes"),
    "Parquet under another name": ("rows.csv", parquet(text=["a"]), "is Parquet (.parquet) by its first bytes"),
    "a workbook by name": ("rows.xlsx", workbook(), "unknown form '.xlsx'; allowed: .csv, .tsv, .jsonl"),
    "no suffix": ("rows", GOOD, "unknown form 'without a suffix'; allowed: "),
    "compressed of no form": ("rows.gz", gzip.compress(GOOD), "unknown form '.gz'; allowed: "),
    "compressed Parquet": ("rows.parquet.gz", gzip.compress(parquet(text=["a"])), "unknown form '.gz'; allowed: "),
    "gzip that is none": ("rows.csv.gz", GOOD, "rows.csv.gz: not a readable gzip file: Not a gzipped file"),
    "cut gzip": ("rows.csv.gz", gzip.compress(GOOD)[:-9], "rows.csv.gz: not a readable gzip file: "),
    "gzip with a wrong checksum": ("rows.csv.gz", gzip.compress(GOOD)[:-8] + b"\0" * 8, "gzip file: CRC check failed"),
    "zstd that is none": ("rows.jsonl.zst", GOOD, "rows.jsonl.zst: not a readable zstd file: ZSTD decompress failed"),
    "cut zstd": ("rows.csv.zst", zstd(GOOD)[:-4], "rows.csv.zst: not a readable zstd file: Truncated"),
    "nothing in gzip": ("rows.csv.gz", gzip.compress(b""), "its header has no column 'text'; found none"),
    "a JSON array": ("rows.jsonl", json.dumps([{"text": "a"}]).encode(), "line 1: list found; a JSON object is needed"),
    "JSON over several lines": ("rows.jsonl", b'{\n"text": "a",\n"label": "b"}\n', "rows.jsonl: line 1: not JSON: "),
    "two objects in a line": (
        "rows.jsonl",
        b'{"text":"a","label":"b"} {"text":"c","label":"d"}',
        "line 1: not JSON: Extra",
    ),
    "a cut JSON line": ("rows.jsonl", json_rows({"text": "a", "label": "b"}) + b'\n{"text"', "line 2: not JSON: "),
    "a comma at the end": ("rows.jsonl", b'{"text": "a", "label": "b",}\n', "line 1: not JSON: "),
    "single quotes": ("rows.jsonl", b"{'text': 'a', 'label': 'b'}\n", "line 1: not JSON: "),
    "a JSON key missing": (
        "rows.jsonl",
        json_rows({"text": "a", "label": "b"}, {"text": "c"}),
        "row 2 has no column 'label'",
    ),
    "a number for a text": (
        "rows.jsonl",
        json_rows({"text": 5, "label": "b"}),
        "row 1, column 'text': int64 found; a text",
    ),
    "an object for a label": (
        "rows.jsonl",
        json_rows({"text": "a", "label": {}}),
        "row 1, column 'label': no label but dict",
    ),
    "a list for a label": ("rows.parquet", parquet(text=["a"], label=[["x"]]), "row 1, column 'label': list<"),
    "half a surrogate pair": (
        "rows.jsonl",
        b'{"text": "a\\ud83d", "label": "b"}',
        "row 1, column 'text': half a surrogate",
    ),
    "CSV in JSON Lines": ("rows.jsonl", GOOD, "line 1: not JSON: "),
    "JSON Lines in CSV": (
        "rows.csv",
        json_rows({"text": "a", "label": "b"}),
        "its header has no column 'text'; found ",
    ),
    "cut Parquet": ("rows.parquet", parquet(text=["a"], label=["b"])[:-9], "rows.parquet: not a readable Parquet file"),
    "CSV in Parquet": ("rows.parquet", GOOD, "rows.parquet: not a readable Parquet file"),
    "a Parquet column missing": (
        "rows.parquet",
        parquet(text=["a"]),
        "it has no column 'label'; found 'text'; name yours",
    ),
    "Parquet without rows": (
        "rows.parquet",
        parquet(text=pa.array([], pa.string()), label=[]),
        "rows.parquet: holds no rows",
    ),
    "numbers for texts": (
        "rows.parquet",
        parquet(text=[1, 2], label=["a", "b"]),
        "row 1, column 'text': int64 found; a text",
    ),
    "bytes for texts": (
        "rows.parquet",
        parquet(text=[b"a"], label=["a"]),
        "row 1, column 'text': binary found; a text",
    ),
    "Latin-1 in Parquet": (
        "rows.parquet",
        parquet(text=invalid_utf8(), label=["a", "b"]),
        "row 2, column 'text': its byte 2 is not UTF-8",
    ),
    "Latin-1 labels in Arrow": (
        "rows.arrow",
        arrow(text=["a", "b"], label=invalid_utf8()),
        "not a readable Arrow file",
    ),
    "cut Arrow": ("rows.arrow", arrow(text=["a"], label=["b"])[:-20], "rows.arrow: not a readable Arrow file"),
    "CSV in Arrow": ("rows.arrow", GOOD, "rows.arrow: not a readable Arrow file"),
}

READ: dict[str, tuple[str, bytes]] = {
    "as it should be": ("rows.csv", GOOD),
    "semicolons": ("rows.csv", GOOD.replace(b",", b";")),
    "tabs in CSV": ("rows.csv", GOOD.replace(b",", b"\t")),
    "commas in TSV": ("rows.tsv", GOOD),
    "bars": ("rows.csv", GOOD.replace(b",", b"|")),
    "a byte order mark": ("rows.csv", b"\xef\xbb\xbf" + GOOD),
    "a byte order mark before quotes": ("rows.csv", b'\xef\xbb\xbf"text","label"\ngood,pos\nbad,neg\n'),
    "UTF-16 with a mark": ("rows.csv", GOOD.decode().encode("utf-16")),
    "line ends of an old Mac": ("rows.csv", GOOD.replace(b"\n", b"\r")),
    "line ends of Windows": ("rows.csv", GOOD.replace(b"\n", b"\r\n")),
    "blank lines everywhere": ("rows.csv", b"\n\n" + GOOD.replace(b"\n", b"\n\r\n\n")),
    "no last line end": ("rows.csv", GOOD.rstrip()),
    "blanks around labels": ("rows.csv", b"text,label\ngood, pos\nbad,neg \n"),
    "a column without a name": ("rows.csv", b",text,label\n0,good,pos\n1,bad,neg\n"),
    "unused columns of one name": ("rows.csv", b"x,x,text,label\n0,1,good,pos\n1,2,bad,neg\n"),
    "a column called 0": ("rows.csv", b"x,0,text,label\n0,1,good,pos\n1,2,bad,neg\n"),
    "gzip in two members": ("rows.csv.gz", gzip.compress(GOOD[:15]) + gzip.compress(GOOD[15:])),
    "zstd in two frames": ("rows.csv.zst", zstd(GOOD[:15]) + zstd(GOOD[15:])),
    "blank lines in JSON Lines": (
        "rows.jsonl",
        b'\n{"text": "good", "label": "pos"}\n \n{"text": "bad", "label": "neg"}',
    ),
    "a JSON key twice": ("rows.jsonl", b'{"text":"x","text":"good","label":"pos"}\n{"text":"bad","label":"neg"}'),
    "other keys of other types": (
        "rows.ndjson",
        b'{"text":"good","label":"pos","x":1}\n{"label":"neg","x":[],"text":"bad"}',
    ),
}


def rows(folder: Path, name: str, content: bytes) -> list[tuple[str, str]]:
    path = folder / name
    path.write_bytes(content)
    source = open_source(str(path), "train", DataConfig(train="unused"))
    return [(row["text"], row["label"]) for batch in source.batches for row in batch.to_pylist()]


@pytest.mark.parametrize("case", REFUSED)
def test_a_malformed_file_gives_one_line_that_names_the_place(tmp_path, case):
    name, content, told = REFUSED[case]
    with pytest.raises(InputError) as caught:
        rows(tmp_path, name, content)
    message = str(caught.value)
    assert "\n" not in message
    assert name in message
    assert told in message


SECRET = "My name is Jane Doe, born 1970-01-01, and my HIV test results were sent to the wrong address, please call"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", f'"{SECRET}",complaint\n"good, too",praise\n'.encode()),
        ("rows.csv", f'"{SECRET}",label\n'.encode()),
        ("rows.csv", f"{SECRET};complaint\n".encode()),
        ("rows.tsv", f"{SECRET}\tcomplaint\n".encode()),
        ("rows.jsonl", json_rows({"text": "a", "label": "b"}, {SECRET: 1})),
        ("rows.parquet", parquet(**{SECRET: ["a"]})),
    ],
)
def test_a_text_where_a_column_s_name_should_be_is_not_told(tmp_path, name, content):
    with pytest.raises(InputError) as caught:
        rows(tmp_path, name, content)
    assert "found 'My name is Jane Doe" in str(caught.value)
    assert not any(word in str(caught.value) for word in ("born", "1970", "HIV", "call"))


@pytest.mark.parametrize(
    ("content", "hinted"),
    [
        (b"good,pos\nbad,neg\n", True),
        (f'"{SECRET}",complaint\n'.encode(), True),
        (f"{SECRET}\n".encode(), True),
        (b"text,category\na,b\n", False),
        (b"", False),
        (b"\n\n", False),
    ],
)
def test_a_file_without_a_header_is_told_that_it_may_have_none(tmp_path, content, hinted):
    with pytest.raises(InputError) as caught:
        rows(tmp_path, "rows.csv", content)
    assert ("has no header" in str(caught.value)) == hinted


def test_the_names_of_columns_are_told_though_they_are_long_or_of_several_words(tmp_path):
    with pytest.raises(InputError, match="'customer_feedback_text_translated'"):
        rows(tmp_path, "rows.csv", b"customer_feedback_text_translated,label\na,b\n")
    names = b"Date received,Consumer complaint narrative,Timely response?"
    with pytest.raises(InputError, match=r"found 'Date received', 'Consumer complaint n…', 'Timely response\?'"):
        rows(tmp_path, "rows.csv", names)


@pytest.mark.parametrize("case", READ)
def test_a_file_that_is_only_unusual_is_read(tmp_path, case):
    assert rows(tmp_path, *READ[case]) == ROWS


def test_labels_that_are_numbers_of_half_precision_are_read(tmp_path):
    halves = pa.array([1.0, 0.5, None], pa.float16())
    found = rows(tmp_path, "rows.parquet", parquet(text=["a", "b", "c"], label=halves))
    assert [label for _, label in found] == ["1", "0.5", None]


def test_a_stray_quote_in_a_text_without_quotes_is_that_quote(tmp_path):
    content = b'text,label\na 5" screen,pos\n"quoted, 2"" wide",neg\nsay "hi",pos\n'
    assert rows(tmp_path, "rows.csv", content) == [
        ('a 5" screen', "pos"),
        ('quoted, 2" wide', "neg"),
        ('say "hi"', "pos"),
    ]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"encoding": "utf-9"}, "data.encoding: 'utf-9' given; not an encoding that Python knows, such as utf-8"),
        ({"encoding": "rot13"}, "data.encoding: 'rot13' given; not an encoding"),
        ({"encoding": "ascii"}, "line 2: byte 0xc3 is not ascii; convert the file"),
        ({"delimiter": "||"}, "data.delimiter: '||' given; must be one character"),
        ({"delimiter": '"'}, "data.delimiter: '\"' given; must be one character"),
        ({"delimiter": ";"}, "its header has no column 'text'; found 'text,label'"),
    ],
)
def test_what_is_configured_wrongly_is_told_by_its_key(tmp_path, keys, told):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\ncafé,pos\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        list(open_source(str(path), "train", DataConfig(train="unused", **keys)).batches)
    assert told in str(caught.value)


@pytest.mark.parametrize(("delimiter", "between"), [("~", "~"), ("\\t", "\t"), ("§", "§")])
def test_a_delimiter_of_one_s_own_is_taken(tmp_path, delimiter, between):
    path = tmp_path / "rows.csv"
    path.write_text(f'text{between}label\ngood{between}pos\n"b,{between}"{between}neg\n', encoding="utf-8")
    source = open_source(str(path), "train", DataConfig(train="unused", delimiter=delimiter))
    assert next(source.batches)["text"].to_pylist() == ["good", f"b,{between}"]
