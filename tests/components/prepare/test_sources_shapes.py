"""A split is a file, a glob, a folder of files, of classes, or a data set that datasets saved; never some of it."""

from __future__ import annotations

import bz2
import gzip
import json
import shutil
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.components.conftest import write_csv
from tuneline.config import DataConfig
from tuneline.errors import InputError
from tuneline.prepare.sources import fingerprint, open_source

PARTS = [[("one", "pos"), ("two", "neg")], [("three", "pos")]]
DATA = DataConfig(train="unused")
ALL = [row for part in PARTS for row in part]


def rows(uri: Path | str, split: str = "train", **keys: Any) -> list[tuple[Any, ...]]:
    source = open_source(str(uri), split, DataConfig(train="unused", **keys))
    return [tuple(row.values()) for batch in source.batches for row in batch.to_pylist()]


def refusal(uri: Path | str, split: str = "train", **keys: Any) -> str:
    with pytest.raises(InputError) as caught:
        rows(uri, split, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pin(uri: Path | str, key: str = "data.train") -> str:
    return fingerprint(str(uri), key, DataConfig(train="unused"))


def write_parts(folder: Path) -> Path:
    for number, part in enumerate(PARTS):
        write_csv(folder / f"part-{number}.csv", part)
    return folder


def write_classes(folder: Path) -> Path:
    for name, text in (("pos/b.txt", "fine"), ("pos/a.txt", "good\n"), ("neg/1", "bad")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def save(folder: Path, **splits: list[tuple[str, int]]) -> Path:
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    made = {
        name: Dataset.from_dict({"text": [text for text, _ in part], "label": [label for _, label in part]}, features)
        for name, part in splits.items()
    }
    (DatasetDict(made) if len(made) > 1 else next(iter(made.values()))).save_to_disk(folder)
    return folder


@pytest.mark.parametrize("uri", ["", "/", "/*.csv", "/part-?.csv", "/**/*.csv", "/part-[01].csv"])
def test_files_of_a_folder_or_glob_are_read_in_the_order_of_their_names(tmp_path, uri):
    assert rows(f"{write_parts(tmp_path / 'data')}{uri}") == ALL


def test_a_glob_is_taken_from_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(write_parts(tmp_path))
    assert rows("*.csv") == rows("./part-*.csv") == ALL


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path):
    assert rows(write_csv(tmp_path / "a[1].csv", ALL)) == ALL


def test_compressed_and_plain_files_of_one_form_go_together(tmp_path):
    write_csv(tmp_path / "a.csv", PARTS[0])
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"text,label\nthree,pos\n"))
    (tmp_path / "c.CSV.ZST").write_bytes(pa.Codec("zstd").compress(b"text;label\nfour;neg\n").to_pybytes())
    assert rows(tmp_path) == [*ALL, ("four", "neg")]


def test_a_readme_and_hidden_files_are_no_data(tmp_path):
    write_parts(tmp_path)
    for name in ("README.md", "LICENSE", ".part-9.csv", "_SUCCESS"):
        (tmp_path / name).write_text("x")
    assert rows(tmp_path) == ALL


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ({}, "holds no files; give a file or a folder of files (.csv"),
        ({"README.md": "x"}, "holds no files"),
        ({"notes.docx": "x"}, "holds no data but notes.docx; allowed: .csv"),
        ({"a.csv": "text,label\nx,y\n", "b.xlsx": "x"}, "holds b.xlsx, of unknown form; allowed: .csv"),
        ({"a.csv": "text,label\nx,y\n", "b.jsonl": "{}"}, "several forms: CSV (a.csv), JSON Lines (b.jsonl); pick one"),
        (
            {"a.csv": "text,label\nx,y\n", "pos/b.txt": "x"},
            "holds data files and folders (pos/); give one or the other",
        ),
        ({"train.csv": "text,label\nx,y\n", "test.csv": "text,label\n"}, "several splits: test.csv, train.csv; name"),
        ({"train-0.csv": "text,label\nx,y\n", "dev_0.csv": "text,label\n"}, "several splits: dev_0.csv, train-0.csv"),
        ({"a.csv": "text,label\nx,y\n", "b.csv": ""}, "b.csv is empty (0 bytes)"),
        ({"a.csv": "text,label\nx,y\n", "b.csv": "text\nx\n"}, "b.csv: its header has no column 'label'"),
        ({"pos/a.csv": "text,label\n"}, "holds data files in folders (pos/a.csv); give their folder, or a glob"),
        ({"pos/a/b.txt": "x"}, "holds folders in folders (pos/a/b.txt); give a folder of one folder a class"),
        ({"pos/a.docx": "x"}, "holds pos/a.docx; a folder of a class holds texts (.txt"),
        ({"state.json": "{}"}, "state.json is not one that datasets' save_to_disk writes; save it again"),
        ({"state.json": '{"_data_files": [{"filename": "data-0.arrow"}]}'}, "data-0.arrow is missing, which its"),
        ({"dataset_dict.json": "{}"}, "is a saved data set without a split 'train'; found none"),
    ],
)
def test_a_folder_that_is_not_one_thing_is_refused_by_what_it_holds(tmp_path, made, told):
    folder = tmp_path / "data"
    folder.mkdir()
    for name, text in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    assert told in refusal(folder)


@pytest.mark.parametrize("uri", ["none/*.csv", "data/*.tsv"])
def test_a_glob_without_a_file_is_told(tmp_path, uri):
    write_parts(tmp_path / "data")
    assert refusal(tmp_path / uri, "test").startswith(f"data.test: {tmp_path / uri}: no file matches; give files (.csv")


def test_a_bad_row_is_told_with_its_own_file_and_number(tmp_path):
    write_parts(tmp_path)
    write_csv(tmp_path / "part-2.csv", [("four", "pos"), ("five", "neg", "ragged")])
    assert refusal(tmp_path).startswith(f"{tmp_path / 'part-2.csv'}: row 2 (line 3) has 3 cells, the header has 2")


def test_a_folder_of_classes_gives_each_text_the_name_of_its_folder(tmp_path):
    write_classes(tmp_path)
    assert rows(tmp_path) == [("bad", "neg"), ("good\n", "pos"), ("fine", "pos")]
    (tmp_path / "urls.txt").write_text("beside the classes")
    (tmp_path / "pos" / "c.txt.gz").write_bytes(gzip.compress("größe".encode("cp1252")))
    assert rows(tmp_path, encoding="cp1252")[-1] == ("größe", "pos")
    assert f"{tmp_path / 'pos/c.txt.gz'}: line 1: byte 0xf6 is not UTF-8" in refusal(tmp_path)
    assert "data.group_column: 'author' given; " in refusal(tmp_path, group_column="author")
    assert "data.slice_columns: 'channel' given; " in refusal(tmp_path, slice_columns=["channel"])


def test_links_to_the_folder_that_they_are_in_end(tmp_path):
    folder = write_classes(tmp_path / "classes")
    for name in ("one", "two"):
        (folder / "pos" / name).symlink_to(folder / "pos")
    assert sorted(rows(folder)) == [("bad", "neg"), ("fine", "pos"), ("good\n", "pos")]


def test_a_file_of_a_class_without_end_is_told_before_memory_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr("tuneline.prepare.sources.MAX_CELL", 8 << 20)
    folder = write_classes(tmp_path / "classes")
    (folder / "neg" / "2.gz").write_bytes(gzip.compress(b"x" * (24 << 20)))
    assert "neg/2.gz: more than 8 MiB; a file in a class's folder is one text" in refusal(folder)


def test_a_saved_data_set_gives_the_split_that_is_asked_for_and_the_names_of_its_classes(tmp_path):
    folder = save(tmp_path / "both", train=[("good", 1), ("bad", 0), ("what", -1)], test=[("fine", 1)])
    assert rows(folder) == [("good", "pos"), ("bad", "neg"), ("what", "-1")]
    assert rows(folder, "test") == rows(folder / "test") == [("fine", "pos")]
    assert "without a split 'validation'; found test, train; give the folder of one" in refusal(folder, "validation")
    assert rows(save(tmp_path / "one", train=[("good", 1)])) == [("good", "pos")]


def test_a_saved_data_set_that_lacks_a_file_is_refused(tmp_path):
    from datasets import Dataset

    Dataset.from_dict({"text": ["a", "b"], "label": ["x", "y"]}).save_to_disk(tmp_path / "saved", num_shards=2)
    assert rows(tmp_path / "saved") == [("a", "x"), ("b", "y")]
    (tmp_path / "saved" / "data-00001-of-00002.arrow").unlink()
    assert "data-00001-of-00002.arrow is missing, which its state.json names" in refusal(tmp_path / "saved")


def test_class_numbers_of_parquet_become_the_names_that_datasets_wrote(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    path = tmp_path / "train.parquet"
    Dataset.from_dict({"text": ["a", "b"], "label": [1, None]}, features).to_parquet(path)
    assert rows(path) == [("a", "pos"), ("b", None)]


def test_label_map_gives_new_names_to_labels_as_written(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "label": 0}\n{"text": "b", "label": " 1 "}\n{"text": "c", "label": "other"}\n')
    assert rows(path, label_map={"0": "neg", "1": "pos"}) == [("a", "neg"), ("b", "pos"), ("c", "other")]


@pytest.mark.parametrize("form", [".csv", ".jsonl", ".parquet"])
def test_pairs_groups_and_times_come_along_where_they_are_asked_for(tmp_path, form):
    row = {"text": "a", "label": "x", "hypothesis": "b", "author": "7", "when": "2026-01-31T10:00:00+02:00"}
    path = tmp_path / f"rows{form}"
    if form == ".csv":
        write_csv(path, [list(row.values())], tuple(row))
    elif form == ".jsonl":
        path.write_text(json.dumps(row | {"author": 7}))
    else:
        pq.write_table(pa.Table.from_pylist([row]), path)
    found = rows(path, pair_column="hypothesis", group_column="author", time_column="when")
    assert found == [("a", "x", "b", "7", datetime(2026, 1, 31, 8, tzinfo=UTC))]
    source = open_source(str(path), "train", DataConfig(train="unused", time_column="when"))
    assert {field.name: str(field.type) for field in next(source.batches).schema} == {
        "text": "large_string",
        "label": "large_string",
        "time": "timestamp[us, tz=UTC]",
    }


@pytest.mark.parametrize(
    ("key", "column"), [("pair_column", "'second'"), ("group_column", "'second'"), ("time_column", "'second'")]
)
def test_a_missing_further_column_is_named_with_its_key(tmp_path, key, column):
    message = refusal(write_csv(tmp_path / "rows.csv", ALL), **{key: "second"})
    assert f"no column {column}; found 'text', 'label'; name yours with data.{key}=NAME" in message


WHEN = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["2026-01-31", "2026-01-31T12:30:00"], [WHEN.replace(hour=0, minute=0), WHEN]),
        (["2026-01-31 13:30+01:00", "2026-01-31T12:30:00Z"], [WHEN, WHEN]),
        (["2026-01-31T12:30", "2026-01-31T13:30+01:00", " 20260131T1230 "], [WHEN, WHEN, WHEN]),
        (pa.array([WHEN], pa.timestamp("ns", "Europe/Berlin")), [WHEN]),
        (pa.array([WHEN.replace(tzinfo=None)], pa.timestamp("s")), [WHEN]),
        (pa.array([WHEN.date()], pa.date32()), [WHEN.replace(hour=0, minute=0)]),
        (pa.array(["2026-01-31T12:30"]).dictionary_encode(), [WHEN]),
    ],
)
def test_a_time_is_a_moment_however_it_is_written(tmp_path, values, found):
    count = len(found)
    table = pa.table({"text": ["a"] * count, "label": ["x"] * count, "when": values})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert [row[2] for row in rows(tmp_path / "rows.parquet", time_column="when")] == found


def test_a_moment_beyond_the_calendar_and_one_that_is_lacking_are_told_by_row(tmp_path):
    good = 1_769_817_600
    for second, told in ((300_000_000_000, "a time outside the years 1 to 9999"), (None, "nothing")):
        when = pa.array([good, second], pa.timestamp("s"))
        pq.write_table(pa.table({"text": ["a", "b"], "label": ["x", "y"], "when": when}), tmp_path / "rows.parquet")
        assert f"row 2, column 'when': {told} found" in refusal(tmp_path / "rows.parquet", time_column="when")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("31.12.2026", "'31.12.2026'"), ("soon, she said", "str"), ("", "nothing"), (None, "nothing"),
        (1769817600, "int64"), ("2026-13-01", "'2026-13-01'"), ("0001-01-01T00:00+05:00", "'0001-01-01T00:00+05:00'"),
    ],
)  # fmt: skip
def test_what_is_no_time_is_told_by_row_without_repeating_a_text(tmp_path, value, shown):
    path = tmp_path / "rows.jsonl"
    good = {"text": "a", "label": "x", "when": "2026-01-31"}
    path.write_text(json.dumps(good) + "\n" + json.dumps(good | {"when": value}))
    assert f"row 2, column 'when': {shown} found; an ISO 8601" in refusal(path, time_column="when")


def test_a_pin_follows_the_content_of_every_file(tmp_path):
    folder, copy = write_parts(tmp_path / "a"), write_parts(tmp_path / "b")
    before = pin(folder)
    assert (
        pin(copy) == pin(folder / "*.csv") == before == open_source(str(folder), "train", DataConfig(train="x")).version
    )
    write_csv(copy / "part-1.csv", [("other", "pos")])
    assert pin(copy) != before
    shutil.move(folder / "part-1.csv", folder / "part-2.csv")
    assert pin(folder) != before


def test_a_pin_follows_the_classes_and_the_split_of_a_saved_data_set(tmp_path):
    folder = write_classes(tmp_path / "classes")
    before = pin(folder)
    shutil.move(folder / "pos", folder / "positive")
    assert pin(folder) != before
    saved = save(tmp_path / "saved", train=[("good", 1)], test=[("fine", 1)])
    assert pin(saved) != pin(saved, "data.test")


def test_batches_are_bounded_in_rows_and_bytes(tmp_path):
    count, text = 25_000, "word " * 8
    table = pa.table({"text": [text] * count, "label": ["x"] * count})
    pq.write_table(table, tmp_path / "short.parquet")
    with pa.ipc.new_file(tmp_path / "long.arrow", table.schema) as file:
        file.write_table(pa.table({"text": ["x" * 100_000] * 1000, "label": ["x"] * 1000}))
    sizes = [batch.num_rows for batch in open_source(str(tmp_path / "short.parquet"), "train", DATA).batches]
    assert sum(sizes) == count
    assert max(sizes) <= 10_000
    assert max(batch.nbytes for batch in open_source(str(tmp_path / "long.arrow"), "train", DATA).batches) <= 17 << 20


@pytest.mark.parametrize("form", [".csv", ".jsonl"])
def test_a_file_is_not_held_whole_while_it_is_read(tmp_path, form, monkeypatch):
    monkeypatch.setattr("tuneline.tables.stream.BLOCK", 1 << 18)
    path = tmp_path / f"rows{form}"
    row = '"the ""plot"", said he",x\n' if form == ".csv" else '{"text": "the plot, said he", "label": "x"}\n'
    count = (8 << 20) // len(row)
    path.write_text(("text,label\n" if form == ".csv" else "") + row * count)
    size = path.stat().st_size
    tracemalloc.start()
    before, peak, found = pa.total_allocated_bytes(), 0, 0
    for batch in open_source(str(path), "train", DATA).batches:
        found += batch.num_rows
        peak = max(peak, pa.total_allocated_bytes() - before)
    peak += tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == count
    assert peak < size


def test_an_unknown_compression_is_an_unknown_form(tmp_path):
    (tmp_path / "rows.csv.bz2").write_bytes(bz2.compress(b"text,label\na,x\n"))
    assert "unknown form '.bz2'; allowed: " in refusal(tmp_path / "rows.csv.bz2")


def test_a_text_to_predict_on_may_be_compressed_or_arrow(tmp_path):
    from tuneline.tables import texts

    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b'{"text": "good"}\n{"text": "bad"}\n'))
    with pa.ipc.new_stream(tmp_path / "rows.arrow", pa.schema({"text": pa.string()})) as file:
        file.write_table(pa.table({"text": ["good", "bad"]}))
    assert [*texts(str(tmp_path / "rows.jsonl.gz"), "text")] == ["good", "bad"]
    assert [*texts(str(tmp_path / "rows.arrow"), "text")] == ["good", "bad"]


def test_a_file_to_predict_on_is_refused_in_the_words_of_predict_which_has_no_data_keys(tmp_path):
    from tuneline.tables import texts

    (tmp_path / "other.csv").write_text("body,id\ngood,1\n")
    with pytest.raises(InputError) as caught:
        list(texts(str(tmp_path / "other.csv"), "text"))
    assert "found 'body', 'id'; name yours with --column/--pair-column NAME;" in str(caught.value)
    for content, way in ((b"text\ncaf\xe9\n", "-t UTF-8"), ("text\na\n".encode("utf-16-le"), "convert it to UTF-8")):
        (tmp_path / "other.csv").write_bytes(content)
        with pytest.raises(InputError) as caught:
            list(texts(str(tmp_path / "other.csv"), "text"))
        assert way in str(caught.value)
        assert "data." not in str(caught.value)
