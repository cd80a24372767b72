"""Rows become chunks whose borders depend on the rows alone, and numbers that say of each row what is needed later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.components.conftest import write_csv
from tuneline.config import DataConfig
from tuneline.errors import InputError
from tuneline.prepare import chunks as chunking
from tuneline.prepare.chunks import chunks
from tuneline.prepare.ingest import MOST_LABELS, NO_LABEL, Labels, Table, examination, read
from tuneline.prepare.split import places
from tuneline.prepare.workers import Pool


def batches(texts: list[str], sizes: list[int]) -> list[pa.RecordBatch]:
    """The texts in batches of these sizes, the last one as large as is left."""
    found, start = [], 0
    for size in [*sizes, len(texts)]:
        part = texts[start : start + size]
        start += size
        found.append(
            pa.record_batch({"text": pa.array(part, pa.large_string()), "label": pa.array(part, pa.large_string())})
        )
    return found


def cut(texts: list[str], sizes: list[int]) -> list[list[str]]:
    return [batch.column("text").to_pylist() for batch in chunks(batches(texts, sizes))]


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunking, "ROWS", 4)
    monkeypatch.setattr(chunking, "BYTES", 10)


some = st.lists(st.text("aé", max_size=12), max_size=30)
sizes = st.lists(st.integers(0, 9), max_size=8)


@given(some, sizes, sizes)
def test_chunks_hold_every_row_in_order_whatever_the_readers_batches(rows, one, other):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunking, "ROWS", 4)
        patch.setattr(chunking, "BYTES", 10)
        found = cut(rows, one)
        assert found == cut(rows, other)
    assert [text for chunk in found for text in chunk] == rows
    assert all(0 < len(chunk) <= 4 for chunk in found)
    assert all(sum(len(text.encode()) for text in chunk[:-1]) < 10 for chunk in found)


def test_a_chunk_is_full_before_the_next_begins(small_chunks):
    assert cut(list("abcdefghi"), []) == [list("abcd"), list("efgh"), ["i"]]
    assert cut(["a" * 9, "b" * 9, "c" * 30, "d"], []) == [["a" * 9, "b" * 9], ["c" * 30], ["d"]]


def test_a_chunk_is_sent_without_the_rows_around_it(small_chunks):
    import pickle

    whole = batches(["abcdefgh"] * 10_000, [])
    assert max(len(pickle.dumps(chunk)) for chunk in list(chunks(whole))[:5]) < 2000


def ingest(
    folder: Path, rows: list[Any], header: tuple[str, ...] = ("text", "label"), **keys: Any
) -> tuple[Table, Labels]:
    data, labels = DataConfig(train=str(write_csv(folder / "t.csv", rows, header)), **keys), Labels()
    with Pool(1) as pool:
        return read(data.train, "train", data, labels, pool, folder, None), labels


def test_a_table_finds_its_texts_again_in_any_order(tmp_path, monkeypatch):
    monkeypatch.setattr(chunking, "ROWS", 4)
    table, _ = ingest(tmp_path, [(f"text {number}", "a") for number in range(10)])
    assert table.starts.tolist() == [0, 4, 8, 10]
    assert table.texts(np.array([9, 0, 4, 3, 9])) == ["text 9", "text 0", "text 4", "text 3", "text 9"]


def test_labels_are_numbered_as_they_come_and_a_missing_one_is_told_apart(tmp_path):
    table, labels = ingest(tmp_path, [("one", "b"), ("two", ""), ("three", "a"), ("four", "b")])
    assert labels.names == ["b", "a"]
    assert table.labels.tolist() == [0, NO_LABEL, 1, 0]


def test_a_column_of_texts_is_not_taken_for_labels():
    found = Labels()
    with pytest.raises(InputError, match=r"data\.train: more than 10000 different labels; is data\.label_column the"):
        found.codes(pa.array([str(number) for number in range(MOST_LABELS + 1)]), "data.train")


def test_rows_of_one_group_get_one_place_and_a_row_without_a_group_its_own(tmp_path):
    rows = [("a", "x", "ann"), ("b", "x", "ann"), ("c", "x", ""), ("d", "x", "")]
    table, _ = ingest(tmp_path, rows, ("text", "label", "author"), group_column="author")
    first, second, third, fourth = table.places["split"].tolist()
    assert first == second
    assert len({first, third, fourth}) == 3
    assert [third, fourth] == places(["c", "d"], 0, "split").tolist()


def test_a_premise_gets_one_place_with_all_of_its_hypotheses(tmp_path):
    rows = [("a premise", "so", "x"), ("a premise", "not so", "y")]
    table, _ = ingest(tmp_path, rows, ("text", "second", "label"), pair_column="second", max_train=1)
    assert len(set(table.places["split"].tolist())) == 1
    assert len(set(table.places["sample"].tolist())) == 2
    assert table.texts(np.array([1])) == ["a premise\nnot so"]


def test_texts_are_cleaned_before_they_are_hashed_where_the_policy_says_so(tmp_path):
    rows = [("good <br /> film", "x"), ("good film", "x")]
    table, _ = ingest(tmp_path, rows, policy={"markup": "fix"})
    assert table.texts(np.array([0, 1]))[1] == "good film"
    assert "<br" not in table.texts(np.array([0]))[0]
    as_it_came, _ = ingest(tmp_path, rows)
    assert table.facts["flags"].tolist() == as_it_came.facts["flags"].tolist()
    assert table.facts["exact"][0] != as_it_came.facts["exact"][0]


def test_a_row_without_a_date_is_named(tmp_path):
    rows = [("a", "x", "2026-01-01"), ("b", "x", "")]
    with pytest.raises(InputError, match=r"t\.csv: row 2, column 'day': nothing found; an ISO 8601 date"):
        ingest(tmp_path, rows, ("text", "label", "day"), time_column="day", test_from="2026-02-01")


@pytest.mark.parametrize(
    ("name", "keys", "purposes"),
    [
        ("train", {}, ("split",)),
        ("train", {"test": "t", "validation": "v"}, ()),
        ("train", {"test": "t", "validation": "v", "max_train": 5}, ("sample",)),
        ("train", {"test": "t", "max_validation": 5}, ("split", "sample")),
        ("train", {"test": "t", "validation": "v", "max_test": 5}, ()),
        ("test", {"test": "t", "max_test": 5}, ("sample",)),
        ("test", {"test": "t", "max_train": 5}, ()),
    ],
)
def test_only_the_places_that_are_needed_are_drawn(name, keys, purposes):
    assert examination(name, DataConfig(train="-", **keys)).purposes == purposes
