"""Batch prediction: no row is lost, doubled or out of order, whatever the shards; one version answers all."""

from __future__ import annotations

import csv
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.components.conftest import write_csv
from tests.conftest import reviews
from tuneline import registry
from tuneline.errors import InputError
from tuneline.serve import batch
from tuneline.serve.batch import check_output, merge, plan, predict_shard
from tuneline.serve.model import Classifier
from tuneline.tracking import StepRun

pytestmark = pytest.mark.medium

TEXTS = [text for text, _ in reviews(23)]


@pytest.fixture
def registered(store, trained) -> str:
    """The trained model as version 1 of `reviews`, which is champion."""
    run = store.create_run(store.create_experiment("batch")).info.run_id
    registry.set_aliases("reviews", registry.add_version(StepRun(store, run), "reviews", trained, {}))
    return "reviews@champion"


@pytest.fixture
def files(tmp_path) -> Path:
    """A folder of three files in as many forms, of 23 texts; hidden ones do not count."""
    folder = tmp_path / "input"
    write_csv(folder / "a.csv", [(text,) for text in TEXTS[:9]], ("text",))
    (folder / "b.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[9:10]))
    write_csv(folder / "c.csv", [(text,) for text in TEXTS[10:]], ("text",))
    (folder / "_SUCCESS").write_text("")
    (folder / ".c.csv.part").write_text("half")
    return folder


def shards_of(work: list[batch.Shard], tmp_path: Path) -> list[Path]:
    """All shards, predicted; each as JSON that knows floats only hands them on."""
    parts = []
    for number, shard in enumerate(json.loads(json.dumps(work), parse_int=float)):
        parts.append(tmp_path / "parts" / str(number))
        predict_shard(shard, ["text"], parts[-1])
    return parts


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("count", [1, 2, 5, 23, 99])
def test_shards_together_are_what_one_call_answers(registered, files, trained, tmp_path, count):
    made = plan(registered, str(files), ["text"], count)
    assert {shard["model"] for shard in made} == {"reviews/1"}
    assert len(made) == min(count, 23)
    parts = shards_of(made, tmp_path)
    labels = merge(reversed(parts), 23, tmp_path / "out")
    rows = read(tmp_path / "out")
    assert [row["row"] for row in rows] == list(range(23))
    assert [row["text"] for row in rows] == TEXTS
    classifier = Classifier(trained)
    expected = classifier.predict_proba(TEXTS)
    assert [[row[f"p({label})"] for label in classifier.labels] for row in rows] == pytest.approx(expected, abs=1e-5)
    assert [row["label"] for row in rows] == [classifier.labels[best] for best in expected.argmax(1)]
    assert labels == {label: [row["label"] for row in rows].count(label) for label in set(labels)}


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any), st.integers(1, 50))
def test_every_row_belongs_to_one_shard_and_shards_are_equal(counts, shards):
    rows = sum(counts)
    edges = [rows * number // shards for number in range(shards + 1)]
    paths = [Path(str(number)) for number in range(len(counts))]
    taken: list[tuple[str, int]] = []
    for start, stop in pairwise(edges):
        pieces = list(batch._pieces(paths, counts, ["" for _ in paths], start, stop))
        assert sum(piece["stop"] - piece["start"] for piece in pieces) == stop - start
        taken += [(piece["file"], row) for piece in pieces for row in range(piece["start"], piece["stop"])]
    assert taken == [(str(path), row) for path, count in zip(paths, counts, strict=True) for row in range(count)]


def test_the_alias_is_resolved_once(store, registered, files, trained, tmp_path):
    made = plan(registered, str(files), ["text"], 2)
    store.set_registered_model_alias("reviews", "champion", "1")
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    decision = json.loads((other / "tuneline.json").read_text())
    (other / "tuneline.json").write_text(json.dumps(decision | {"labels": ["other", "labels"]}))
    run = store.create_run(store.create_experiment("later")).info.run_id
    later = registry.add_version(StepRun(store, run), "reviews", other, {})
    store.set_registered_model_alias("reviews", "champion", later)
    merge(shards_of(made, tmp_path), 23, tmp_path / "out")
    assert {row["label"] for row in read(tmp_path / "out")} <= {"neg", "pos"}
    assert plan(registered, str(files), ["text"], 1)[0]["model"] == "reviews/2"


def test_a_shard_that_runs_again_gives_the_same_bytes(registered, files, tmp_path):
    made = plan(registered, str(files), ["text"], 2)
    first, again = (shards_of(made, tmp_path)[1].read_bytes() for _ in range(2))
    assert first == again


def test_input_that_changes_after_the_plan_is_refused(registered, files, tmp_path):
    made = plan(registered, str(files), ["text"], 1)
    write_csv(files / "c.csv", [("another text",)] * 13, ("text",))
    with pytest.raises(InputError, match=r"c\.csv: has changed or gone since the shards were planned"):
        predict_shard(made[0], ["text"], tmp_path / "part")
    assert list(tmp_path.glob("part*")) == []


def test_a_version_with_other_weights_than_planned_is_refused(registered, files, tmp_path):
    made = plan(registered, str(files), ["text"], 1)
    with pytest.raises(InputError, match=r"^reviews/1: its weights are not those that were planned with$"):
        predict_shard(made[0] | {"weights": "0" * 64}, ["text"], tmp_path / "part")


def test_a_missing_a_doubled_and_a_foreign_shard_are_found(registered, files, tmp_path):
    made = plan(registered, str(files), ["text"], 3)
    parts = shards_of(made, tmp_path)
    (tmp_path / "out").write_text("old")
    with pytest.raises(InputError, match="row 7 expected, row 15 found: a shard is missing or doubled"):
        merge([parts[0], parts[2]], 23, tmp_path / "out")
    with pytest.raises(InputError, match="23 rows expected, 15 found"):
        merge(parts[:2], 23, tmp_path / "out")
    with pytest.raises(InputError, match="row 15 expected, row 7 found"):
        merge([*parts, parts[1]], 23, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "old"


@pytest.mark.parametrize(
    ("files", "shards", "told"),
    [
        ("input", 0, "^shards: 0 given; at least 1$"),
        ("nowhere.csv", 1, "nowhere.csv: no such file"),
        ("empty", 1, "empty: a folder without files"),
        ("bad", 1, r"bad/b\.txt: unknown form"),
        ("headers.csv", 1, r"headers\.csv: holds no rows"),
        ("hole", 1, r"hole/a\.csv: row 2, column 'text': empty text"),
    ],
)
def test_what_cannot_be_planned_is_told_before_any_shard_starts(registered, files_of_all_kinds, files, shards, told):
    with pytest.raises(InputError, match=told):
        plan(registered, str(files_of_all_kinds / files), ["text"], shards)


@pytest.fixture
def files_of_all_kinds(files, tmp_path) -> Path:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "b.txt").write_text("x")
    write_csv(tmp_path / "headers.csv", [], ("text",))
    write_csv(tmp_path / "hole" / "a.csv", [("x",), (" ",)], ("text",))
    return tmp_path


def test_too_many_pieces_for_an_argument_are_refused(registered, tmp_path):
    for number in range(800):
        write_csv(tmp_path / "many" / f"{number}.csv", [("x",)], ("text",))
    with pytest.raises(InputError, match="800 files in 1 shards are too many for KFP; join files"):
        plan(registered, str(tmp_path / "many"), ["text"], 1)


@pytest.mark.parametrize(
    ("output", "told"),
    [("out.txt", r"unknown form '\.txt'"), ("input/out.csv", "lies in the input"), ("a.csv", "lies in the input")],
)
def test_an_output_that_cannot_be_is_refused(output, told):
    with pytest.raises(InputError, match=told):
        check_output(output, "a.csv" if output == "a.csv" else "input")


def test_the_result_is_also_written_where_it_is_asked_for(registered, files, tmp_path):
    made = plan(registered, str(files), ["text"], 2)
    parts = shards_of(made, tmp_path)
    merge(parts, 23, tmp_path / "out", str(tmp_path / "labelled.csv"))
    with (tmp_path / "labelled.csv").open(newline="") as stream:
        assert [row["text"] for row in csv.DictReader(stream)] == TEXTS
    with pytest.raises(InputError, match=r"^output: .*none/x\.csv: cannot be written: No such file or directory"):
        merge(parts, 23, tmp_path / "out", str(tmp_path / "none" / "x.csv"))


LABELS = ["spam & scam", "C++", "C--", "C__", "(none)", "can't pay", "a//b", "../b", "退款", "\U0001f600",
          "x" * 400, " "]  # fmt: skip


def test_labels_whose_names_mlflow_refuses_in_a_metric_are_counted_all_the_same(store, tmp_path):
    class Made:
        path, metadata = str(tmp_path / "part"), {}

    class Out:
        path, metadata = str(tmp_path / "out"), {}

    rows = [{"row": number, "text": "a", "label": label} for number, label in enumerate([*LABELS, "C++"])]
    Path(Made.path).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    batch.merge_step([Made], Out, [{"model": "reviews/1", "rows": len(rows)}], output="")
    (run,) = store.search_runs([store.get_experiment_by_name("tuneline").experiment_id])
    shares = {name: value for name, value in run.data.metrics.items() if name.startswith("share.")}
    assert len(shares) == len(LABELS)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["share.C__"] == pytest.approx(2 / 13)
    assert {"share.C-- 2", "share.C__ 2"} & shares.keys()
    assert Out.metadata["rows"] == 13


@pytest.mark.slow
def test_the_pipeline_runs_shard_by_shard(store, registered, files, tmp_path, monkeypatch):
    from kfp import local

    from tuneline_pipelines.batch import build

    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"))
    task = build()(model=registered, files=str(files), shards=2, output=str(tmp_path / "labelled.jsonl"))
    rows = read(Path(task.output.path))
    assert [row["text"] for row in rows] == TEXTS
    assert (tmp_path / "labelled.jsonl").read_text() == Path(task.output.path).read_text()
    (run,) = store.search_runs([store.get_experiment_by_name("tuneline").experiment_id])
    assert run.data.params["model"] == "reviews/1"
    assert run.data.metrics["rows"] == 23
