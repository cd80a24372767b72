"""A person's corrections come back whole, whatever a spreadsheet did to the file, or are refused in one line."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneline.errors import InputError
from tuneline.prepare import corrections
from tuneline.prepare.corrections import key

TEXTS = ["good film", "bad film", 'a; "quoted"\ntext', "'tis"]


def saved(path: Path, rows: list[tuple[str, str, str]], delimiter: str = ",", encoding: str = "utf-8-sig") -> str:
    """A file of text, new_label, key, as a spreadsheet saves it."""
    with path.open("w", newline="", encoding=encoding) as stream:
        csv.writer(stream, delimiter=delimiter).writerows([("text", "new_label", "key"), *rows])
    return str(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_file_that_a_spreadsheet_saved_is_read(tmp_path: Path, delimiter: str, encoding: str) -> None:
    rows = [(text, new, key(text)) for text, new in zip(TEXTS, ["bad", "", "-", "pos"], strict=True)]
    found = corrections.load(saved(tmp_path / "c.csv", rows, delimiter, encoding), {"pos": "good"})
    labels, kept = found.apply([*TEXTS, "good film"], None, ["good", "bad", "bad", None, "good"])
    assert labels == ["bad", "bad", "bad", "good", "bad"]
    assert kept == [True, True, False, True, True]
    assert found.told() == ["corrections: 3 rows relabelled, 1 removed, by 3 corrections"]


def test_a_correction_that_meets_no_row_is_told(tmp_path: Path) -> None:
    found = corrections.load(saved(tmp_path / "c.csv", [("gone", "bad", key("gone"))]))
    found.apply(TEXTS, None, ["good"] * 4)
    assert "1 of 1 match no text" in found.told()[1]


def test_a_pair_is_not_taken_for_its_first_text(tmp_path: Path) -> None:
    found = corrections.load(saved(tmp_path / "c.csv", [("a", "bad", key("a", "b"))]))
    assert found.apply(["a", "a"], ["b", "c"], ["good", "good"])[0] == ["bad", "good"]


def test_a_label_that_is_called_like_the_removal_can_be_written(tmp_path: Path) -> None:
    found = corrections.load(saved(tmp_path / "c.csv", [("a", "'-", key("a"))]))
    assert found.labels[key("a")] == "-"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "its header needs one column 'new_label'"),
        (b"text,new_label\na,b\n", "needs one column 'key'"),
        (b"key,key,new_label\n", "needs one column 'key'"),
        (b"new_label,key\ngood,1.2E+31\n", "row 1, column 'key': '1.2E+31' found"),
        (f"new_label,key\ngood,{key('a')}\n\nbad,{key('a')}\n".encode(), "row 2, column 'new_label': row 1 says"),
        (b"new_label,key\n,\ngood\n", "has 1 cells, the header has 2"),
        (b'new_label,key\n"good,k0\n', "row 1 (line 2)"),
        (b"new_label,key\n\xe9,k0\n", "line 2: not UTF-8"),
        (b"I was born on 1970-01-01 and I need some help,x\n", "found 'I was born on 1970-0\u2026' and 1 more"),
    ],
)
def test_a_malformed_file_is_refused_in_a_line_that_names_the_place(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        corrections.load(str(path))
    assert told in str(refused.value)
    assert str(path) in str(refused.value)


def test_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        corrections.load(str(tmp_path / "none.csv"))


def test_a_label_that_the_data_lacks_is_refused(tmp_path: Path) -> None:
    found = corrections.load(saved(tmp_path / "c.csv", [("a", "", key("a")), ("b", "goood", key("b"))]))
    found.apply(["a", "b"], None, ["good", "bad"])
    with pytest.raises(InputError, match=r"row 2, column 'new_label': 'goood' is no label .* allowed: 'bad', 'good'"):
        found.check_labels()
    found.apply(["c"], None, ["goood"])
    found.check_labels()


@given(st.text())
def test_a_guarded_cell_computes_nothing_and_comes_back(cell: str) -> None:
    assert corrections.unguarded(corrections.guarded(cell)) == cell
    assert not corrections.guarded(cell).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


@given(st.lists(st.tuples(st.text(), st.text()), min_size=2, max_size=2, unique=True))
def test_two_pairs_have_two_keys(pairs: list[tuple[str, str]]) -> None:
    assert key(*pairs[0]) != key(*pairs[1])
