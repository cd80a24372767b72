"""What the gate reads: stored without pickle, the same bytes for the same answers, and paired only with its like."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tuneline.errors import InputError
from tuneline.predictions import (
    FILE,
    TRAINING_FILE,
    Predictions,
    contaminated,
    keys,
    load_training_keys,
    save_training_keys,
)

TEXTS = ["a", "b", "c"]
MINE = Predictions(
    ["no", "yes"], keys(TEXTS), np.array([0, 1, 1], np.int32), np.array([0, 1, -1], np.int32),
    np.array([0.9, 0.8, 0.4], np.float32), np.array([0.9, 0.8, 0.3], np.float32), np.array([0, 0, 1], np.int32),
    {"length: 1 to 2 tokens": np.array([True, False, True])}, {"test_sha256": "abc"},
)  # fmt: skip


def test_what_is_written_is_read_and_its_bytes_do_not_change(tmp_path):
    MINE.save(tmp_path)
    first = (tmp_path / FILE).read_bytes()
    found = Predictions.load(tmp_path)
    assert (found.names, found.facts) == (MINE.names, MINE.facts)
    for name in ("keys", "labels", "answers", "confidence", "chance", "baseline"):
        stored, given = getattr(found, name), getattr(MINE, name)
        assert (stored.dtype, stored.tolist()) == (given.dtype, given.tolist())
    assert {name: part.tolist() for name, part in found.slices.items()} == {
        "length: 1 to 2 tokens": [True, False, True]
    }
    found.save(tmp_path)
    assert (tmp_path / FILE).read_bytes() == first


def test_predictions_without_slices_or_rows_are_stored_too(tmp_path):
    none = {name: getattr(MINE, name)[:0] for name in ("keys", "labels", "answers", "confidence", "chance", "baseline")}
    replace(MINE, slices={}, **none).save(tmp_path)
    found = Predictions.load(tmp_path)
    assert (found.slices, len(found.keys)) == ({}, 0)


@pytest.mark.parametrize("damage", ["missing", "cut", "other", "pickle"])
def test_a_file_that_is_not_what_was_written_is_one_line(tmp_path, damage):
    MINE.save(tmp_path)
    path = tmp_path / FILE
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-50])
    elif damage == "other":
        path.write_text("no")
    else:
        np.savez(path, about=np.array([{"names": 1}], object))
    with pytest.raises(InputError, match="evaluate the model again"):
        Predictions.load(tmp_path)


def test_the_answers_of_a_model_with_other_label_names_or_another_order_are_translated():
    other = replace(MINE, names=["yes", "other", "no"], labels=np.array([2, 0, 0]), answers=np.array([0, 1, 2]))
    assert MINE.answers_of(other).tolist() == [1, -1, 0]
    assert MINE.answers_of(MINE).tolist() == MINE.answers.tolist()


def test_keys_tell_texts_apart_and_where_a_pair_is_parted():
    assert len(set(keys(["ab", "a", "b", ""], ["c", "bc", "", "abc"]).tolist())) == 4
    assert keys(["a", "a"]).tolist()[0] == keys(["a", "a"]).tolist()[1]
    assert keys(["\ud800"]).dtype == np.uint64


def test_test_rows_in_the_training_rows_are_counted(tmp_path):
    save_training_keys(tmp_path, keys(["x", "c", "x", "a"]))
    seen = load_training_keys(tmp_path)
    assert len(seen) == 3
    assert contaminated(keys(TEXTS), seen) == 2


@pytest.mark.parametrize("content", [None, b"no", b"\x93NUMPY"])
def test_training_keys_that_cannot_be_read_are_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / TRAINING_FILE).write_bytes(content)
    with pytest.raises(InputError, match="evaluate the model again"):
        load_training_keys(tmp_path)
