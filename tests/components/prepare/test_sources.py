"""Labelled text is read alike from every form, and what cannot be learned from is refused by file, row and column."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.components.conftest import write_csv
from tuneline.config import DataConfig
from tuneline.errors import InputError
from tuneline.prepare.sources import fingerprint, open_source
from tuneline.tables import READABLE, delimited, json_lines, texts

ROWS = [
    ('It\'s "good", truly', "pos"),
    ("two\nlines and a\ttab", "neg"),
    ("Ünïcode 😀 日本語", "pos"),
    ("separators \u2028 of \u2029 lines \x85 within", "neg"),
    (" spaces stay ", "a label of words"),
]
DATA = DataConfig(train="unused")
NEWLINE_FORMS = [".csv", ".tsv", ".jsonl"]
FORMS = [*NEWLINE_FORMS, ".parquet"]


def encoded(form: str, rows: list[dict[str, Any]], newline: str = "\n") -> bytes:
    """A file of these rows."""
    if form == ".parquet":
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        return sink.getvalue()
    if form == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + newline for row in rows).encode()
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if form == ".tsv" else ",", lineterminator=newline)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def put(folder: Path, form: str, content: bytes | list[dict[str, Any]]) -> str:
    path = folder / f"rows{form}"
    path.write_bytes(content if isinstance(content, bytes) else encoded(form, content))
    return str(path)


def labelled(rows: list[tuple[Any, Any]]) -> list[dict[str, Any]]:
    return [{"text": text, "label": label} for text, label in rows]


def read_rows(uri: str, split: str = "train", text: str = "text", label: str = "label") -> list[tuple[str, str]]:
    data = DataConfig(train=uri, text_column=text, label_column=label)
    return [(row["text"], row["label"]) for batch in open_source(uri, split, data).batches for row in batch.to_pylist()]


def refusal(uri: str, split: str = "train") -> str:
    with pytest.raises(InputError) as caught:
        list(open_source(uri, split, DataConfig(train=uri)).batches)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows(tmp_path, form):
    assert read_rows(put(tmp_path, form, labelled(ROWS))) == ROWS


@pytest.mark.parametrize("form", NEWLINE_FORMS)
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path, form):
    assert read_rows(put(tmp_path, form, b"\xef\xbb\xbf" + encoded(form, labelled(ROWS), "\r\n"))) == ROWS


@pytest.mark.parametrize("form", NEWLINE_FORMS)
def test_blank_lines_and_a_missing_last_line_end_change_nothing(tmp_path, form):
    lines = encoded(form, labelled([("good", "pos"), ("bad", "neg")])).rstrip(b"\n").split(b"\n")
    assert read_rows(put(tmp_path, form, b"\n\n".join(lines))) == [("good", "pos"), ("bad", "neg")]


@pytest.mark.parametrize("form", [".csv", ".tsv"])
def test_line_breaks_inside_quotes_are_kept_as_written(tmp_path, form):
    between = "\t" if form == ".tsv" else ","
    uri = put(tmp_path, form, f'text{between}label\r\n"one\r\ntwo"{between}pos\r\n'.encode())
    assert read_rows(uri) == [("one\r\ntwo", "pos")]


@pytest.mark.parametrize("form", FORMS)
def test_columns_go_by_name_and_the_others_are_passed_over(tmp_path, form):
    uri = put(tmp_path, form, [{"id": 1, "stars": "five", "review": "good", "note": ""}])
    assert read_rows(uri, text="review", label="stars") == [("good", "five")]


@pytest.mark.parametrize("form", [".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("label", "name"),
    [(3, "3"), (-1, "-1"), (0, "0"), (True, "True"), (False, "False"), (2.0, "2"), (0.0, "0"), (" pos ", "pos")],
)
def test_labels_become_text_and_whole_numbers_their_decimal_form(tmp_path, form, label, name):
    assert read_rows(put(tmp_path, form, labelled([("good", label)]))) == [("good", name)]


def test_a_suffix_in_capitals_is_known(tmp_path):
    write_csv(tmp_path / "ROWS.CSV", ROWS)
    assert read_rows(str(tmp_path / "ROWS.CSV")) == ROWS


def test_a_text_of_a_megabyte_is_read_whole(tmp_path):
    long = "word " * 200_000
    assert read_rows(put(tmp_path, ".csv", labelled([(long, "pos")]))) == [(long, "pos")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv"])
def test_a_line_without_end_is_told_before_memory_is_full(tmp_path, monkeypatch, name):
    """As of a small compressed file that expands to gigabytes."""
    for module in (json_lines, delimited):
        monkeypatch.setattr(module, "MAX_CELL", 8 << 20)
    (tmp_path / name).write_bytes(b"text,label\n" * (".csv" in name) + b"text\tlabel\n" * (".tsv" in name))
    with (tmp_path / name).open("ab") as file:
        file.write(b'{"text": "' if name.endswith("jsonl") else b'a "quote" amiss')
        file.write(b"x" * (24 << 20))
    with pytest.raises(InputError, match=rf"{name}: .*(a line is longer than 8 MiB|field larger than field limit)"):
        read_rows(str(tmp_path / name))


def test_a_path_is_taken_from_the_current_folder_and_the_home_folder(tmp_path, monkeypatch):
    write_csv(tmp_path / "rows.csv", ROWS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_rows("rows.csv") == read_rows("~/rows.csv") == ROWS


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("absent.csv", "absent.csv: no such file; give a file"),
        ("folder.csv", "folder.csv holds no files; give a file"),
        ("rows.xlsx", "rows.xlsx: unknown form '.xlsx'; allowed: "),
        ("rows", "rows: unknown form 'without a suffix'; allowed: "),
    ],
)
def test_what_is_no_readable_file_is_told_with_the_key_and_the_forms(tmp_path, name, told):
    (tmp_path / "folder.csv").mkdir()
    for file in ("rows.xlsx", "rows"):
        (tmp_path / file).write_text("text,label\n")
    message = refusal(str(tmp_path / name), "test")
    assert message.startswith("data.test: ")
    assert told in message
    assert READABLE in message


@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_no_bytes_is_told_as_empty(tmp_path, form):
    assert refusal(put(tmp_path, form, b"")) == f"data.train: {tmp_path / f'rows{form}'} is empty (0 bytes)"


@pytest.mark.parametrize("form", [".csv", ".tsv", ".parquet"])
def test_a_header_without_rows_is_refused(tmp_path, form):
    if form == ".parquet":
        pq.write_table(pa.table({"text": pa.array([], pa.string()), "label": []}), tmp_path / "rows.parquet")
    else:
        put(tmp_path, form, b"text\tlabel\n" if form == ".tsv" else b"text,label\n")
    assert refusal(str(tmp_path / f"rows{form}")) == f"{tmp_path / f'rows{form}'}: holds no rows"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("column", "key"), [("text", "data.text_column"), ("label", "data.label_column")])
def test_a_missing_column_is_named_with_those_found_and_the_key_to_set(tmp_path, form, column, key):
    row = {"text": "good", "label": "pos", "id": "7"}
    row[f"my {column}"] = row.pop(column)
    message = refusal(put(tmp_path, form, [row]))
    assert f"no column {column!r}; found " in message
    assert all(repr(name) in message for name in row)
    assert message.endswith(f"name yours with {key}=NAME")


def test_a_json_object_that_lacks_a_column_is_named_by_its_row(tmp_path):
    message = refusal(put(tmp_path, ".jsonl", [{"text": "good", "label": "pos"}, {"text": "bad"}]))
    assert "row 2 has no column 'label'; found 'text'" in message


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", ["", "  \t "])
def test_an_empty_text_passes_as_it_is_for_the_policy_to_judge(tmp_path, form, text):
    rows = [("good", "pos"), (text, "neg")]
    assert read_rows(put(tmp_path, form, labelled(rows))) == rows


@pytest.mark.parametrize("form", [".jsonl", ".parquet"])
def test_a_null_is_an_empty_text(tmp_path, form):
    assert read_rows(put(tmp_path, form, labelled([("good", "pos"), (None, "neg")])))[1] == ("", "neg")


@pytest.mark.parametrize(("text", "kind"), [(3, "int"), (["good"], "list")])
def test_a_text_of_another_type_is_told_by_row_and_column(tmp_path, text, kind):
    message = refusal(put(tmp_path, ".jsonl", labelled([("good", "pos"), (text, "neg")])))
    assert f"row 2, column 'text': {kind} found; a text is needed" in message


@pytest.mark.parametrize(("values", "kind"), [([None, 3], "int64"), ([None, ["good"]], "list<")])
def test_a_parquet_column_that_holds_no_texts_is_told_by_its_type(tmp_path, values, kind):
    message = refusal(put(tmp_path, ".parquet", labelled([(value, "pos") for value in values])))
    assert f"row 2, column 'text': {kind}" in message
    assert message.endswith("found; a text is needed")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("label", ["", "  "])
def test_a_blank_label_is_none(tmp_path, form, label):
    assert read_rows(put(tmp_path, form, labelled([("good", "pos"), ("bad", label)])))[1] == ("bad", None)


@pytest.mark.parametrize(("form", "label"), [(".jsonl", None), (".parquet", None), (".jsonl", float("nan"))])
def test_a_null_is_no_label(tmp_path, form, label):
    assert read_rows(put(tmp_path, form, labelled([("good", 1.0), ("bad", label)]))) == [("good", "1"), ("bad", None)]


def test_a_list_is_no_label(tmp_path):
    assert "row 1, column 'label': no label" in refusal(put(tmp_path, ".jsonl", labelled([("good", ["pos"])])))


@pytest.mark.parametrize(
    ("form", "content"),
    [
        (".csv", b"text,label\ngood,pos\ncaf\xe9,neg\n"),
        (".tsv", b"text\tlabel\ngood\tpos\ncaf\xe9\tneg\n"),
        (".jsonl", b'\n{"text": "good", "label": "pos"}\n{"text": "caf\xe9", "label": "neg"}\n'),
    ],
)
def test_a_byte_that_is_not_utf8_is_told_with_its_line(tmp_path, form, content):
    assert "line 3: byte 0xe9 is not UTF-8; convert the file" in refusal(put(tmp_path, form, content))


@pytest.mark.parametrize("cells", [b"bad,very,neg", b"bad"])
def test_a_ragged_row_is_told_with_row_line_and_counts(tmp_path, cells):
    message = refusal(put(tmp_path, ".csv", b'text,label\n"go\nod",pos\n' + cells + b"\n"))
    count = cells.count(b",") + 1
    assert f"row 2 (line 4) has {count} cells, the header has 2; quote texts that hold ','" in message


def test_a_quote_that_is_never_closed_is_told_with_its_row(tmp_path):
    assert "rows.csv: row 2 (line " in refusal(put(tmp_path, ".csv", b'text,label\ngood,pos\n"bad,neg\n'))


@pytest.mark.parametrize("line", [b'{"text": "bad",', b"bad", b"[" * 100_000])
def test_a_line_that_is_no_json_is_told_with_its_number(tmp_path, line):
    content = b'{"text": "good", "label": "pos"}\n\n' + line
    assert "rows.jsonl: line 3: not JSON: " in refusal(put(tmp_path, ".jsonl", content))


@pytest.mark.parametrize(("line", "kind"), [(b'["bad", "neg"]', "list"), (b'"bad"', "str"), (b"3", "int")])
def test_a_line_that_is_no_object_is_told_with_its_number(tmp_path, line, kind):
    content = b'{"text": "good", "label": "pos"}\n' + line
    assert f"rows.jsonl: line 2: {kind} found; a JSON object is needed" in refusal(put(tmp_path, ".jsonl", content))


@pytest.mark.parametrize("column", ["text", "label"])
def test_half_of_a_surrogate_pair_is_refused_by_row_and_column(tmp_path, column):
    rows = labelled([("good", "pos"), ("bad", "neg")])
    rows[1][column] = "cut \ud83d"
    content = "\n".join(json.dumps(row) for row in rows).encode()
    assert f"row 2, column {column!r}" in refusal(put(tmp_path, ".jsonl", content))


@pytest.mark.parametrize("header", ["text,label,text", "label,text,label"])
def test_a_column_that_stands_twice_in_the_header_is_refused(tmp_path, header):
    message = refusal(put(tmp_path, ".csv", f"{header}\na,b,c\n".encode()))
    assert f"its header has the column {header.rpartition(',')[2]!r} twice; rename one" in message


@pytest.mark.parametrize("keep", [4, 100, -1])
def test_a_truncated_parquet_file_is_refused(tmp_path, keep):
    content = encoded(".parquet", labelled(ROWS))[:keep]
    assert "rows.parquet: not a readable Parquet file: " in refusal(put(tmp_path, ".parquet", content))


def test_a_parquet_file_with_damaged_pages_is_refused(tmp_path):
    content = bytearray(encoded(".parquet", labelled(ROWS * 50)))
    content[4:60] = b"\xff" * 56
    assert "rows.parquet: not a readable Parquet file: " in refusal(put(tmp_path, ".parquet", bytes(content)))


def test_texts_to_predict_on_need_no_labels(tmp_path):
    assert [*texts(put(tmp_path, ".csv", [{"review": "good"}, {"review": "bad"}]), "review")] == ["good", "bad"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"words\ngood\n", "no column 'review'; found 'words'; name yours with --column/--pair-column NAME"),
        (b'review\ngood\n""\n', "row 2, column 'review': empty text"),
    ],
)
def test_texts_to_predict_on_are_checked_like_training_texts(tmp_path, content, told):
    with pytest.raises(InputError) as caught:
        list(texts(put(tmp_path, ".csv", content), "review"))
    assert told in str(caught.value)


def test_a_fingerprint_follows_the_content_and_not_the_name(tmp_path):
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    for path in (first, second):
        write_csv(path, ROWS)
    same = fingerprint(str(first), "data.train", DATA)
    assert fingerprint(str(second), "data.train", DATA) == same
    write_csv(second, ROWS[:-1])
    assert fingerprint(str(second), "data.train", DATA) != same


def test_a_source_that_can_move_has_no_fingerprint():
    assert fingerprint("hf://owner/name", "data.train", DATA) == ""


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_commit_of_the_hub_pins_itself():
    assert fingerprint(f"hf://owner/name:config@{COMMIT}?text=review", "data.train", DATA) == COMMIT


@pytest.mark.parametrize(("uri", "asked"), [("hf://owner/name", ""), ("hf://owner/name:config@v1", "/revision/v1")])
def test_a_branch_or_tag_of_the_hub_is_pinned_by_the_commit_that_the_hub_has_there(uri, asked):
    paths: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            body = json.dumps({"id": "owner/name", "sha": COMMIT}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    code = (
        "import sys; from tuneline.config import DataConfig; from tuneline.prepare.sources import fingerprint;"
        "print(fingerprint(sys.argv[1], 'data.train', DataConfig(train='x')))"
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        env = os.environ | {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0"}
        done = subprocess.run([sys.executable, "-c", code, uri], env=env, capture_output=True, text=True, check=True)
        server.shutdown()
    assert done.stdout.strip() == COMMIT
    assert [path.partition("?")[0] for path in paths if "datasets" in path] == [f"/api/datasets/owner/name{asked}"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder that datasets takes for the hub data set owner/name."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "owner" / "name"


def test_hub_data_is_read_by_the_split_and_the_columns_that_its_address_names(hub):
    write_csv(hub / "train.csv", [("good", "five"), ("bad", "one")], ("review", "stars"))
    write_csv(hub / "test.csv", [("fine", "four")], ("review", "stars"))
    assert read_rows("hf://owner/name?text=review&label=stars") == [("good", "five"), ("bad", "one")]
    assert read_rows("hf://owner/name?text=review&label=stars", "test") == [("fine", "four")]
    assert read_rows("hf://owner/name?split=train[:1]&text=review&label=stars", "test") == [("good", "five")]
    message = refusal("hf://owner/name?text=review")
    assert "it has no column 'label'; found 'review', 'stars'; name yours with data.label_column=NAME" in message


def test_hub_data_gives_the_names_of_its_classes(hub):
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["World", "Sports"])})
    hub.mkdir(parents=True)
    Dataset.from_dict({"text": ["a cup", "a war"], "label": [1, 0]}, features).to_parquet(hub / "train.parquet")
    assert read_rows("hf://owner/name") == [("a cup", "Sports"), ("a war", "World")]


@pytest.mark.parametrize(
    ("split", "advice"),
    [
        ("train", f"point it at a local file: data.train=PATH ({READABLE})"),
        ("test", f"data.test=PATH ({READABLE}), or data.test= to split it off the training data"),
    ],
)
def test_a_hub_out_of_reach_is_told_with_the_key_that_takes_a_local_file(hub, split, advice):
    message = refusal("hf://tuneline-tests/no-such-data", split)
    assert message.startswith(f"data.{split}: hf://tuneline-tests/no-such-data: not to be had from the hub (")
    assert message.endswith(advice)
