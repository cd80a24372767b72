"""Which parts of the rows are looked at, and which are called worse."""

from __future__ import annotations

import numpy as np
import pytest

from tuneline.evaluate.slices import examine, parts, script


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain words", "Latin"), ("größer als ß", "Latin"), ("Привет, world", "Cyrillic"), ("日本 okay", "Latin"),
        ("日本語 ok", "Cjk"), ("123 !?", "None"), ("", "None"), ("😀", "None"), ("שלום", "Hebrew"),
    ],
)  # fmt: skip
def test_the_script_of_a_text_is_that_of_most_of_its_letters(text, wanted):
    assert script(text) == wanted


def test_rows_are_parted_by_length_label_script_and_column():
    lengths = np.arange(100)
    labels = (np.arange(100) % 4 == 0).astype(int)
    texts = ["текст" if row < 20 else "text" for row in range(100)]
    channel = ["mail" if row < 50 else None for row in range(100)]
    found = parts(lengths, lengths >= 88, labels, ["rest", "quarter"], texts, {"channel": channel})
    assert {name: int(part.sum()) for name, part in found.items()} == {
        "length: 0 to 25 tokens": 26, "length: 26 to 50 tokens": 25, "length: 51 to 75 tokens": 25,
        "length: 76 to 99 tokens": 24, "cut": 12, "label: rest": 75, "label: quarter": 25, "script: Cyrillic": 20,
        "script: Latin": 80, "channel: (empty)": 50, "channel: mail": 50,
    }  # fmt: skip
    assert found["cut"].tolist() == (lengths >= 88).tolist()


def test_a_column_that_is_called_as_a_slice_of_ours_keeps_both():
    label = ["x"] * 15 + ["y"] * 15
    found = parts(np.full(30, 7), np.zeros(30, bool), np.arange(30) % 2, ["a", "b"], ["text"] * 30, {"label": label})
    assert set(found) == {"label: a", "label: b", "column label: x", "column label: y"}


def test_parts_of_few_rows_or_of_all_are_left_out():
    found = parts(np.full(30, 7), np.arange(30) < 9, np.zeros(30, int), ["only"], ["text"] * 30)
    assert found == {}


def test_the_most_frequent_values_of_a_column_are_looked_at():
    columns = {"id": [f"{row // 10:03}" for row in range(1000)]}
    found = parts(np.full(1000, 7), np.zeros(1000, bool), np.zeros(1000, int), ["only"], ["text"] * 1000, columns)
    assert len(found) == 30


def test_a_part_that_is_worse_than_the_rest_is_flagged_first():
    right = np.ones(1000, bool)
    right[:30] = right[500:520] = False
    found = {"bad": np.arange(1000) < 100, "good": np.arange(1000) >= 800, "even": np.arange(1000) % 2 == 0}
    table = examine(found, right)
    assert [(row["name"], row["n"], row["worse"]) for row in table] == [
        ("bad", 100, True), ("even", 500, False), ("good", 200, False),
    ]  # fmt: skip
    assert (table[0]["accuracy"], table[0]["low"], table[0]["high"]) == pytest.approx((0.7, 0.604, 0.781), abs=1e-3)


def test_of_many_parts_without_a_difference_seldom_one_is_flagged():
    draw = np.random.default_rng(0)
    found = {f"part {number}": np.arange(2000) % 50 == number for number in range(50)}
    flagged = sum(any(row["worse"] for row in examine(found, draw.random(2000) < 0.9)) for _ in range(100))
    assert flagged <= 9  # 5 of 100 at most, and luck
