"""How training rows are divided: which rows, what is known of each of them, and what is told of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tuneline.config import DataConfig
from tuneline.prepare.ingest import DROPPED, Table
from tuneline.prepare.parts import divide

MOST = 2**64


def table(labels: list[int], at: list[float] | None = None, times: list[int] | None = None) -> Table:
    """Rows of these labels, placed at these shares of all places; a fact of each row is its number."""
    count = len(labels)
    places = np.array([int(share * MOST) for share in at or np.linspace(0, 0.99, count)], np.uint64)
    return Table(
        "rows.csv", "", Path("none.arrow"), np.array([0, count]), np.array(labels, np.int32),
        {"number": np.arange(count)}, {"split": places, "sample": places[::-1].copy()},
        None if times is None else np.array(times),
    )  # fmt: skip


def data(**keys: object) -> DataConfig:
    return DataConfig.model_validate({"train": "rows.csv"} | keys)


def test_what_is_given_is_left_as_it_is_and_only_the_rest_is_made_and_told() -> None:
    found = divide(
        {"train": table([0, 1] * 10), "test": table([0, 1])}, data(test="t.csv", validation_share=0.2), ["a", "b"]
    )
    assert list(found.parts) == ["train", "validation", "test"]
    assert [part.origin for part in found.parts.values()] == ["train", "train", "test"]
    assert len(found.parts["test"].rows) == 2
    made = len(found.parts["validation"].rows)
    assert made == 4
    assert len(found.parts["train"].rows) == 16
    assert found.notes == ["validation: 4 of 20 training rows, by content hash"]


def test_a_row_that_a_correction_took_out_is_in_no_split_whether_any_is_made_or_not() -> None:
    labels = [0, 1, DROPPED, 0, 1]
    whole = {"train": table(labels), "validation": table([0]), "test": table([1])}
    found = divide(whole, data(validation="v.csv", test="t.csv"), ["a", "b"])
    assert found.parts["train"].rows.tolist() == [0, 1, 3, 4]
    assert (found.notes, found.findings) == ([], [])
    made = divide({"train": table(labels)}, data(test_share=0.5, validation_share=0.1), ["a", "b"])
    rows = np.concatenate([part.rows for part in made.parts.values()])
    assert sorted(rows.tolist()) == [0, 1, 3, 4]


def test_facts_labels_and_draws_follow_their_rows_and_are_held_once() -> None:
    source = table([0, 1, 2] * 20)
    found = divide({"train": source}, data(test_share=0.3, validation_share=0.3), ["a", "b", "c"])
    for part in found.parts.values():
        assert part.facts["number"].tolist() == part.rows.tolist()
        assert part.labels.tolist() == source.labels[part.rows].tolist()
        assert part.draws is not None
        assert part.draws.tolist() == source.places["sample"][part.rows].tolist()
    assert source.facts == {}
    assert sorted(np.concatenate([part.rows for part in found.parts.values()]).tolist()) == list(range(60))


def test_a_sample_is_the_rows_of_the_lowest_draws_and_none_keeps_all() -> None:
    part = divide({name: table([0, 1, 0, 1]) for name in ("train", "validation", "test")}, data(
        validation="v.csv", test="t.csv"), ["a", "b"]).parts["train"]  # fmt: skip
    assert part.sample(0) is part
    assert part.sample(2).rows.tolist() == [2, 3]  # draws are the places from the other end
    assert part.sample(2).facts["number"].tolist() == [2, 3]
    assert part.sample(9).rows.tolist() == [0, 1, 2, 3]


def test_rows_of_a_class_that_train_would_lack_go_back_and_are_counted() -> None:
    labels, at = [0] * 8 + [1], [0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.05]
    found = divide({"train": table(labels, at)}, data(test_share=0.2, validation_share=0.1), ["a", "b"])
    assert 8 in found.parts["train"].rows
    assert found.notes[0] == "train: 1 rows kept from the held-out splits, because train had none of their classes"
    assert found.notes[1:] == [
        "validation: 0 of 9 training rows, by content hash", "test: 1 of 9 training rows, by content hash",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "way", "why"),
    [
        ({}, "by content hash", ""),
        ({"group_column": "author"}, "by a hash of 'author'", " (groups and dates do that)"),
        ({"time_column": "day", "test_from": "1970-01-02"}, "from 1970-01-02 on", " (groups and dates do that)"),
    ],
)
def test_how_a_split_was_made_and_what_that_did_to_its_balance_is_told(
    keys: dict[str, str], way: str, why: str
) -> None:
    labels = [0] * 300 + [1] * 20 + [1] * 100
    at = [0.9] * 320 + [0.1] * 100  # the last hundred are held out, by place or by date
    times = [0] * 320 + [86_400_000_000] * 100
    whole = {"train": table(labels, at, times)}
    found = divide(whole, data(test_share=0.2, validation_share=0.0001, **keys), ["a", "b"])
    assert found.parts["test"].rows.tolist() == list(range(320, 420))
    assert f"test: 100 of 420 training rows, {way}" in found.notes
    (finding,) = found.findings
    assert (finding.severity, finding.splits, finding.count) == ("warning", ["train"], 71)
    assert finding.message.endswith(f"more than drawing at random gives{why}")
    # of two splits the one is off as the other is
    assert "is 'a': 93.8% of train, 71.4% of all" in finding.message


def test_a_balance_that_drawing_gives_is_told_as_that() -> None:
    draw = np.random.default_rng(0)
    at = draw.random(400).tolist()
    (finding,) = divide({"train": table([0, 1] * 200, at)}, data(), ["a", "b"]).findings
    assert finding.severity == "info"
    assert finding.message.endswith("as drawing at random gives")
