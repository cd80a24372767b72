"""Which parts of the rows are looked at, and which are called worse."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tests.components.conftest import model_config, prepare_rows, write_csv
from tests.conftest import reviews
from tuneline.artifacts import PreparedData, read_json, read_split
from tuneline.config import DataConfig
from tuneline.evaluate import findings
from tuneline.evaluate.slices import examine, parts
from tuneline.prepare.prepare import prepare


@pytest.mark.parametrize("second", ["", "и да"])
def test_a_script_s_rows_are_those_that_the_audit_counts(tmp_path, tiny_checkpoint, second):
    kinds = ["ひらがな", "中国", "ＦＵＬＬ", "µµ", "Привет", "123", "film", "日本 okay", "a" * 300 + " " + "текст" * 99]
    rows = [(f"{kinds[number % 9]} {number}", second, ("neg", "pos")[number % 2]) for number in range(180)]
    sources = {
        split: str(write_csv(tmp_path / f"{split}.csv", some, ("text", "pair", "label")))
        for split, some in {"train": [(text, second, label) for text, label in reviews(40)], "test": rows}.items()
    }
    data = DataConfig(**sources, pair_column="pair" if second else "")
    manifest = prepare(data, model_config(tiny_checkpoint), tmp_path / "data")
    found = findings.TestSet.of(read_split(tmp_path / "data", "test"), manifest).parts
    counted = read_json(tmp_path / "data" / "audit.json")["scripts"]["test"]
    assert {name: int(part.sum()) for name, part in found.items() if name.startswith("script: ")} == {
        f"script: {name}": count for name, count in counted.items() if count < 180
    }


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


@pytest.fixture
def of_lengths(tmp_path, tiny_checkpoint):
    """The slices of test texts of so many words, cut at 8 tokens of which two are special ones."""

    def run(words: list[int]) -> tuple[dict[str, np.ndarray], pa.Table, PreparedData]:
        rows = [(f"{'good ' * (count - 1)}{number}", ("neg", "pos")[number % 2]) for number, count in enumerate(words)]
        data = prepare_rows(tmp_path, tiny_checkpoint, 8, train=reviews(60), validation=reviews(20, 90), test=rows)
        table, manifest = read_split(data, "test"), PreparedData.load(data)
        return findings.TestSet.of(table, manifest).parts, table, manifest

    return run


def test_texts_that_just_fit_are_not_among_those_cut(of_lengths):
    words = [4, 6, 6, 7] * 20
    parts, _, _ = of_lengths(words)
    assert parts["cut"].tolist() == [count == 7 for count in words]
    assert "cut" not in of_lengths([4, 6] * 20)[0]


def test_data_prepared_before_it_was_written_down_what_was_cut_can_be_evaluated(of_lengths):
    _, table, manifest = of_lengths([4, 5, 5, 7] * 20)
    assert findings.TestSet.of(table.drop_columns(["cut"]), manifest).parts["cut"].sum() == 20
