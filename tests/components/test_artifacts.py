"""What crosses between steps comes out as it went in."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pytest

from tuneline.artifacts import (
    Decision,
    PreparedData,
    read_json,
    read_split,
    sha256_file,
    split_writer,
    write_json,
)
from tuneline.errors import InputError

MANIFEST = PreparedData(
    labels=["négatif", "積極的", 'a "b"'], rows={"train": 2, "validation": 1, "test": 1}, sha256={"all": "00"},
    max_length=8, long_texts="tail", truncated={"train": 1, "validation": 0, "test": 0}, model="pkg:x",
    sources={"train": "a.csv", "validation": "", "test": ""}, seed=3, notes=["test: 1 of 4 training rows"],
)  # fmt: skip


def test_a_manifest_survives_its_folder(tmp_path):
    MANIFEST.save(tmp_path)
    assert PreparedData.load(tmp_path) == MANIFEST
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_decision_survives_its_folder(tmp_path):
    decision = Decision(
        labels=["nein", "да"], max_length=64, long_texts="head", base_model="pkg:x", data_sha256="ab", pairs=True,
        clean=["markup"], temperature=1.5, thresholds={"nein": 0.25, "да": 0.75}, costs={"да": {"nein": 2.5}},
        abstain_below=0.5, abstain_label="да",
    )  # fmt: skip
    decision.save(tmp_path)
    assert Decision.load(tmp_path) == decision
    assert [path.name for path in tmp_path.iterdir()] == ["tuneline.json"]


OLD = {"labels": ["a", "b"], "max_length": 8, "long_texts": "head", "base_model": "pkg:x", "data_sha256": "ab"}


def test_a_decision_that_was_stored_before_there_were_thresholds_answers_the_most_probable_label(tmp_path):
    write_json(tmp_path / "tuneline.json", OLD | {"pairs": False, "clean": [], "temperature": 1.2})
    found = Decision.load(tmp_path)
    assert found.plain
    assert found.beyond_stock() == []


def test_a_decision_of_a_later_version_is_refused_rather_than_left_out(tmp_path):
    write_json(tmp_path / "tuneline.json", OLD | {"moon_phase": 1})
    with pytest.raises(InputError, match=r"tuneline\.json: moon_phase is not known to this tuneline; install a newer"):
        Decision.load(tmp_path)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"thresholds": {"a": 0.3, "b": 0.7}}, "thresholds"), ({"costs": {"a": {"b": 2}}}, "costs of errors"),
        ({"abstain_below": 0.4}, "abstention"), ({"long_texts": "tail"}, "long texts by tail"),
        ({"pairs": True}, "pairs of texts"), ({"clean": ["markup"]}, "cleaning of texts"),
    ],
)  # fmt: skip
def test_what_a_stock_server_would_leave_out_of_a_decision_is_named(asked, told):
    assert Decision(**(OLD | asked)).beyond_stock() == [told]


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_split_survives_its_file(tmp_path, rows):
    table = pa.table(
        {
            "row": pa.array(list(range(rows)), pa.int64()),
            "text": pa.array(["ü\u2028\n"] * rows, pa.large_string()),
            "label": pa.array([1] * rows, pa.int32()),
            "input_ids": pa.array([[2, 5, 3]] * rows, pa.large_list(pa.int32())),
        }
    )
    with split_writer(tmp_path, "test", table.schema) as writer:
        for batch in table.to_batches(max_chunksize=2):
            writer.write_batch(batch)
    assert read_split(tmp_path, "test").equals(table)


def test_splits_of_one_folder_are_kept_apart(tmp_path):
    for split, row in (("train", 1), ("test", 2)):
        with split_writer(tmp_path, split, pa.schema({"row": pa.int64()})) as writer:
            writer.write(pa.table({"row": [row]}))
    assert read_split(tmp_path, "train").column("row").to_pylist() == [1]
    assert read_split(tmp_path, "test").column("row").to_pylist() == [2]


def test_a_files_hash_is_that_of_all_its_bytes(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_json_is_readable_by_a_person_and_keeps_the_order_of_keys(tmp_path):
    write_json(tmp_path / "a.json", {"z": "é", "a": [1]})
    assert (tmp_path / "a.json").read_bytes() == '{\n  "z": "é",\n  "a": [\n    1\n  ]\n}\n'.encode()
    assert read_json(tmp_path / "a.json") == {"z": "é", "a": [1]}
